//! What the shop sells.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// The catalogue that is part of the program, for when no other is named.
const BUILT_IN: &str = include_str!("../catalogue.json");

/// One thing that can be bought.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Product {
    /// Lower-case letters, digits, and hyphens: it stands in URLs and cookies as it is.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) summary: String,
    pub(crate) description: String,
    pub(crate) price_cents: u32,
    /// The colour of the illustration, in degrees.
    #[serde(skip_serializing)]
    pub(crate) hue: u16,
    /// The outline of the illustration: SVG path data on a square of 96.
    #[serde(skip_serializing)]
    pub(crate) art: String,
}

/// An amount of money; shown as `€18.00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cents(pub(crate) u64);

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "€{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// All products, in the order of the shelf.
#[derive(Clone, Debug)]
pub(crate) struct Catalogue {
    products: Vec<Product>,
}

impl Catalogue {
    pub(crate) fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("a test parses the built-in catalogue")
    }

    /// Reads a JSON list of products; what it returns can be sold.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let products: Vec<Product> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut ids = BTreeSet::new();
        for product in &products {
            let id = &product.id;
            if !is_id(id) {
                return Err(format!("`{id}` is no id: use lower-case letters, digits, hyphens"));
            }
            if !ids.insert(id) {
                return Err(format!("`{id}` is there twice"));
            }
            if product.price_cents == 0 {
                return Err(format!("`{id}` has no price"));
            }
        }
        Ok(Self { products })
    }

    pub(crate) fn products(&self) -> &[Product] {
        &self.products
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Product> {
        self.products.iter().find(|product| product.id == id)
    }
}

fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=40).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(id: &str, price_cents: u32) -> String {
        format!(
            r#"{{"id":"{id}","name":"n","summary":"s","description":"d","price_cents":{price_cents},"hue":1,"art":""}}"#
        )
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(Catalogue::parse(text).unwrap_err(), expected);
    }

    #[test]
    fn the_built_in_catalogue_can_be_sold() {
        let catalogue = Catalogue::built_in();
        assert_eq!(catalogue.products().len(), 8);
        assert_eq!(catalogue.find("oak-tray").unwrap().name, "Oak tray");
        assert_eq!(catalogue.find("no-such"), None);
    }

    #[test]
    fn what_cannot_be_sold_is_refused() {
        let two = format!("[{},{}]", product("a", 1), product("a", 2));
        refused(&two, "`a` is there twice");
        refused(&format!("[{}]", product("a", 0)), "`a` has no price");
        for id in ["", "A", "a b", "../a", "a~b", &"a".repeat(41)] {
            let expected = format!("`{id}` is no id: use lower-case letters, digits, hyphens");
            refused(&format!("[{}]", product(id, 1)), &expected);
        }
    }

    #[test]
    fn amounts_have_two_digits_after_the_point() {
        for (cents, expected) in [(5, "€0.05"), (1800, "€18.00"), (123_456, "€1234.56")] {
            assert_eq!(Cents(cents).to_string(), expected);
        }
    }
}
