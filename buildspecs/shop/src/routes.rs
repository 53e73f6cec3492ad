//! Requests to answers.

use crate::cart::Cart;
use crate::catalogue::{Catalogue, Product};
use crate::{log, pages};
use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, Form, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use maud::Markup;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Forms are two short fields.
const BODY_LIMIT: usize = 1024;
const COOKIE: &str = "cart";
const CONTENT_SECURITY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; \
                                base-uri 'none'; frame-ancestors 'none'";

type Shelf = State<Arc<Catalogue>>;

/// Returns the commit that this was built from.
pub(crate) fn commit() -> &'static str {
    option_env!("SHOP_COMMIT").filter(|commit| !commit.is_empty()).unwrap_or("dev")
}

pub(crate) fn router(catalogue: Catalogue) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/products/{id}", get(product))
        .route("/cart", get(cart))
        .route("/cart/add", post(add))
        .route("/cart/remove", post(remove))
        .route("/style.css", get(style))
        .route("/health", get(health))
        .route("/version", get(version))
        .route("/api/products", get(api_products))
        .route("/api/products/{id}", get(api_product))
        .route("/api/cart", get(api_cart))
        .fallback(nothing_here)
        .with_state(Arc::new(catalogue))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(protect))
        .layer(middleware::from_fn(log::request))
}

async fn home(State(catalogue): Shelf, headers: HeaderMap) -> Markup {
    pages::home(&catalogue, &cart_of(&headers, &catalogue))
}

async fn product(State(catalogue): Shelf, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let cart = cart_of(&headers, &catalogue);
    match catalogue.find(&id) {
        Some(product) => pages::product(product, &cart).into_response(),
        None => (StatusCode::NOT_FOUND, pages::not_found(&cart)).into_response(),
    }
}

async fn cart(State(catalogue): Shelf, headers: HeaderMap) -> impl IntoResponse {
    let page = pages::cart(&cart_of(&headers, &catalogue));
    ([(header::CACHE_CONTROL, "no-store")], page)
}

#[derive(Deserialize)]
struct Addition {
    id: String,
    quantity: u8,
}

async fn add(
    State(catalogue): Shelf,
    headers: HeaderMap,
    form: Result<Form<Addition>, FormRejection>,
) -> Response {
    let Ok(Form(addition)) = form else { return refused(StatusCode::BAD_REQUEST) };
    let Some(product) = catalogue.find(&addition.id) else {
        return refused(StatusCode::NOT_FOUND);
    };
    keep(&cart_of(&headers, &catalogue).with(product, addition.quantity))
}

#[derive(Deserialize)]
struct Removal {
    id: String,
}

async fn remove(
    State(catalogue): Shelf,
    headers: HeaderMap,
    form: Result<Form<Removal>, FormRejection>,
) -> Response {
    let Ok(Form(removal)) = form else { return refused(StatusCode::BAD_REQUEST) };
    keep(&cart_of(&headers, &catalogue).without(&removal.id))
}

async fn style() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=300"),
    ];
    (headers, include_str!("style.css"))
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn version() -> Json<Value> {
    Json(json!({ "name": "shop", "version": VERSION, "commit": commit() }))
}

async fn api_products(State(catalogue): Shelf) -> Json<Value> {
    Json(json!({ "products": catalogue.products() }))
}

async fn api_product(State(catalogue): Shelf, Path(id): Path<String>) -> Response {
    match catalogue.find(&id) {
        Some(product) => Json::<&Product>(product).into_response(),
        None => missing_json(),
    }
}

async fn api_cart(State(catalogue): Shelf, headers: HeaderMap) -> impl IntoResponse {
    let cart = cart_of(&headers, &catalogue);
    let line = |line: &crate::cart::Line<'_>| {
        json!({
            "id": line.product.id,
            "name": line.product.name,
            "quantity": line.quantity,
            "price_cents": line.product.price_cents,
            "total_cents": line.total().0,
        })
    };
    let lines: Vec<Value> = cart.lines().iter().map(line).collect();
    let body = json!({ "lines": lines, "count": cart.count(), "total_cents": cart.total().0 });
    ([(header::CACHE_CONTROL, "no-store")], Json(body))
}

async fn nothing_here(State(catalogue): Shelf, uri: Uri, headers: HeaderMap) -> Response {
    if uri.path().starts_with("/api/") {
        return missing_json();
    }
    (StatusCode::NOT_FOUND, pages::not_found(&cart_of(&headers, &catalogue))).into_response()
}

fn missing_json() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "error": "not found" }))).into_response()
}

fn refused(status: StatusCode) -> Response {
    (status, pages::refused()).into_response()
}

/// Gives the cart to the browser to keep, and shows it. `Secure` is left out, since the load
/// balancer speaks TLS and a laptop does not; there is nothing secret in it.
fn keep(cart: &Cart<'_>) -> Response {
    let text = cart.to_text();
    let days = if text.is_empty() { 0 } else { 30 };
    let seconds = days * 24 * 60 * 60;
    let cookie = format!("{COOKIE}={text}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax");
    ([(header::SET_COOKIE, cookie)], Redirect::to("/cart")).into_response()
}

fn cart_of<'a>(headers: &HeaderMap, catalogue: &'a Catalogue) -> Cart<'a> {
    let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.split_once('='));
    let cart = pairs.find(|(name, _)| name.trim() == COOKIE);
    Cart::parse(cart.map_or("", |(_, value)| value.trim()), catalogue)
}

/// Refuses forms that another site sent, and tells browsers what these pages never do.
async fn protect(request: Request, next: Next) -> Response {
    let site = request.headers().get("sec-fetch-site");
    let foreign = site.is_some_and(|site| site == "cross-site" || site == "same-site");
    let mut response = if foreign && request.method() == axum::http::Method::POST {
        refused(StatusCode::FORBIDDEN)
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "same-origin");
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cookies: &[&str], expected: &str) {
        let catalogue = Catalogue::built_in();
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(header::COOKIE, HeaderValue::from_str(cookie).unwrap());
        }
        assert_eq!(cart_of(&headers, &catalogue).to_text(), expected);
    }

    #[test]
    fn the_cart_is_found_among_other_cookies() {
        check(&[], "");
        check(&["cart=oak-tray.1"], "oak-tray.1");
        check(&["a=1; cart=oak-tray.1; b=cart=2"], "oak-tray.1");
        check(&["a=1", "b=2; cart=desk-lamp.2"], "desk-lamp.2");
        check(&["notcart=oak-tray.1; cart"], "");
    }
}
