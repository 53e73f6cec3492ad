//! Values to HTML. Whatever is put into a page with `( )` is escaped.

use crate::cart::{Cart, Line, MOST};
use crate::catalogue::{Catalogue, Cents, Product};
use crate::routes::{VERSION, commit};
use maud::{DOCTYPE, Markup, html};

pub(crate) fn home(catalogue: &Catalogue, cart: &Cart<'_>) -> Markup {
    let content = html! {
        section.hero {
            h1 { "Things that get better with use" }
            p { "Plain objects for the house, made by people we know." }
        }
        ul.grid {
            @for product in catalogue.products() {
                li.card {
                    a href={ "/products/" (product.id) } {
                        (picture(product))
                        h2 { (product.name) }
                    }
                    p { (product.summary) }
                    p.price { (price(product)) }
                }
            }
        }
    };
    page("All products", cart.count(), &content)
}

pub(crate) fn product(product: &Product, cart: &Cart<'_>) -> Markup {
    let content = html! {
        p.back { a href="/" { "← All products" } }
        article.product {
            (picture(product))
            div {
                h1 { (product.name) }
                p.price { (price(product)) }
                p { (product.description) }
                form method="post" action="/cart/add" {
                    input type="hidden" name="id" value=(product.id);
                    label for="quantity" { "Quantity" }
                    input id="quantity" name="quantity" type="number" value="1" min="1" max=(MOST)
                        required;
                    button { "Add to cart" }
                }
            }
        }
    };
    page(&product.name, cart.count(), &content)
}

pub(crate) fn cart(cart: &Cart<'_>) -> Markup {
    let content = html! {
        h1 { "Your cart" }
        @if cart.lines().is_empty() {
            p { "There is nothing in it yet. " a href="/" { "Have a look round." } }
        } @else {
            table {
                thead {
                    tr {
                        th scope="col" { "Product" }
                        th.number scope="col" { "Quantity" }
                        th.number scope="col" { "Total" }
                        td {}
                    }
                }
                tbody { @for line in cart.lines() { (row(line)) } }
                tfoot {
                    tr {
                        th scope="row" colspan="2" { "Together" }
                        td.number { strong { (cart.total()) } }
                        td {}
                    }
                }
            }
            p.quiet { "This shop is a demonstration: nothing is charged and nothing is sent." }
        }
    };
    page("Your cart", cart.count(), &content)
}

fn row(line: &Line<'_>) -> Markup {
    html! {
        tr {
            th scope="row" {
                a href={ "/products/" (line.product.id) } { (line.product.name) }
            }
            td.number { (line.quantity) }
            td.number { (line.total()) }
            td.number {
                form method="post" action="/cart/remove" {
                    input type="hidden" name="id" value=(line.product.id);
                    button.plain aria-label={ "Remove " (line.product.name) } { "Remove" }
                }
            }
        }
    }
}

pub(crate) fn not_found(cart: &Cart<'_>) -> Markup {
    let content = html! {
        h1 { "Not on our shelves" }
        p { "There is no such page. " a href="/" { "See all products." } }
    };
    page("Not found", cart.count(), &content)
}

pub(crate) fn refused() -> Markup {
    let content = html! {
        h1 { "That did not work" }
        p { "The form was not one of ours. " a href="/" { "Back to the shop." } }
    };
    page("Not accepted", 0, &content)
}

fn price(product: &Product) -> Cents {
    Cents(u64::from(product.price_cents))
}

/// The illustration says nothing that the name beside it does not.
fn picture(product: &Product) -> Markup {
    let background = format!("hsl({} 45% 90%)", product.hue);
    let line = format!("hsl({} 40% 32%)", product.hue);
    html! {
        svg.picture viewBox="0 0 96 96" preserveAspectRatio="xMidYMid slice" aria-hidden="true" {
            rect width="96" height="96" fill=(background) {}
            path d=(product.art) fill="none" stroke=(line) stroke-width="2"
                stroke-linecap="round" stroke-linejoin="round" {}
        }
    }
}

fn page(title: &str, in_cart: usize, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Fennel & Oak" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                a.skip href="#content" { "To the content" }
                header {
                    a.brand href="/" { "Fennel & Oak" }
                    nav aria-label="Shop" {
                        a href="/" { "Products" }
                        a href="/cart" { "Cart (" (in_cart) ")" }
                    }
                }
                main #content { (content) }
                footer { "Fennel & Oak · version " (VERSION) " · " (commit()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_catalogue_cannot_become_markup() {
        let text = r#"[{"id":"x","name":"<script>alert(1)</script>","summary":"a & b",
            "description":"\"><img src=x>","price_cents":5,"hue":1,"art":"\"/><b>"}]"#;
        let catalogue = Catalogue::parse(text).unwrap();
        let cart = Cart::default().with(&catalogue.products()[0], 1);
        for page in
            [home(&catalogue, &cart), product(&catalogue.products()[0], &cart), super::cart(&cart)]
        {
            let page = page.into_string();
            assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
            for markup in ["<script", "<img", "<b>"] {
                assert!(!page.contains(markup), "{markup} in {page}");
            }
        }
    }
}
