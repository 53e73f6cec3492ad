//! A cart, which the browser keeps in a cookie.
//!
//! The cookie holds ids and quantities alone; names and prices always come from the catalogue, so
//! that a cookie that someone wrote by hand can do no more than one that we wrote.

use crate::catalogue::{Catalogue, Cents, Product};

/// The most that one order may have of a product.
pub(crate) const MOST: u8 = 20;

/// A product and how many of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) product: &'a Product,
    pub(crate) quantity: u8,
}

impl Line<'_> {
    pub(crate) fn total(&self) -> Cents {
        Cents(u64::from(self.product.price_cents) * u64::from(self.quantity))
    }
}

/// What someone means to buy: each product once, from 1 to [`MOST`] of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cart<'a> {
    lines: Vec<Line<'a>>,
}

impl<'a> Cart<'a> {
    /// Reads `mug.2~tray.1`; what is not in the catalogue, or is no quantity, is left out.
    pub(crate) fn parse(text: &str, catalogue: &'a Catalogue) -> Self {
        let entries = text.split('~').filter_map(|entry| {
            let (id, quantity) = entry.split_once('.')?;
            Some((catalogue.find(id)?, quantity.parse().ok()?))
        });
        entries.fold(Self::default(), |cart, (product, quantity)| cart.with(product, quantity))
    }

    /// Returns the cart with so many more of a product.
    #[must_use]
    pub(crate) fn with(mut self, product: &'a Product, quantity: u8) -> Self {
        if quantity == 0 {
            return self;
        }
        match self.lines.iter_mut().find(|line| line.product.id == product.id) {
            Some(line) => line.quantity = line.quantity.saturating_add(quantity).min(MOST),
            None => self.lines.push(Line { product, quantity: quantity.min(MOST) }),
        }
        self
    }

    /// Returns the cart without a product.
    #[must_use]
    pub(crate) fn without(mut self, id: &str) -> Self {
        self.lines.retain(|line| line.product.id != id);
        self
    }

    pub(crate) fn lines(&self) -> &[Line<'a>] {
        &self.lines
    }

    /// Returns how many things are in it.
    pub(crate) fn count(&self) -> usize {
        self.lines.iter().map(|line| usize::from(line.quantity)).sum()
    }

    pub(crate) fn total(&self) -> Cents {
        Cents(self.lines.iter().map(|line| line.total().0).sum())
    }

    /// Writes what [`Cart::parse`] reads.
    pub(crate) fn to_text(&self) -> String {
        let entry = |line: &Line<'_>| format!("{}.{}", line.product.id, line.quantity);
        self.lines.iter().map(entry).collect::<Vec<_>>().join("~")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cookie: &str, expected: &str) {
        let catalogue = Catalogue::built_in();
        assert_eq!(Cart::parse(cookie, &catalogue).to_text(), expected);
    }

    #[test]
    fn a_cookie_is_read_and_written_again() {
        check("", "");
        check("oak-tray.1", "oak-tray.1");
        check("oak-tray.1~desk-lamp.3", "oak-tray.1~desk-lamp.3");
    }

    #[test]
    fn a_forged_cookie_is_reduced_to_what_can_be_bought() {
        check("oak-tray.0~<script>.1~oak-tray~oak-tray.x~oak-tray.-1~oak-tray.300", "");
        check("oak-tray.99", "oak-tray.20");
        check(&"oak-tray.15~".repeat(10_000), "oak-tray.20");
    }

    #[test]
    fn totals_are_sums_of_the_catalogue_s_prices() {
        let catalogue = Catalogue::built_in();
        let cart = Cart::parse("stoneware-mug.2~desk-lamp.1", &catalogue);
        assert_eq!((cart.count(), cart.total()), (3, Cents(12_500)));
        let cart = cart.without("desk-lamp").without("never-there");
        assert_eq!((cart.count(), cart.total()), (2, Cents(3_600)));
    }
}
