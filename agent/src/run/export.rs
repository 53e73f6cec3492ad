//! The variables that a build tells at its end.
//!
//! **Architecture invariant:** values go to an event and to the report as they are. Masking them is
//! for those who show them.

use std::ffi::OsString;

use crate::{
    event::Event,
    shell::{End, Expansion},
};

use super::{Break, Build};

impl Build<'_> {
    /// Reads the variables that the buildspec exports.
    pub(super) fn export(&mut self) -> Result<(), Break> {
        let plan = self.plan;
        let (names, refused) = plan.exported();
        for name in refused {
            (self.emit)(Event::ExportRefused { name });
        }
        if names.is_empty() {
            return Ok(());
        }
        let values = self.values_of(&names)?;
        for (name, _) in names.iter().zip(&values).filter(|(_, value)| value.is_none()) {
            (self.emit)(Event::ExportUnset { name });
        }
        let pairs = names.iter().zip(values);
        self.exported = pairs.filter_map(|(name, it)| Some(((*name).to_owned(), it?))).collect();
        if !self.exported.is_empty() {
            (self.emit)(Event::VariablesExported(&self.exported));
        }
        Ok(())
    }

    /// The value of each variable; none if it is not set, or if the shell cannot tell any more.
    fn values_of(&mut self, names: &[&str]) -> Result<Vec<Option<String>>, Break> {
        let words: Vec<String> =
            names.iter().flat_map(|it| [format!("${{{it}+x}}"), format!("${{{it}-}}")]).collect();
        let values = match self.expand(&words)? {
            Ok(values) => values,
            Err(End::Stopped(signal)) => return Err(Break::Stopped(signal)),
            Err(End::TimedOut) => return Err(Break::TimedOut),
            Err(End::Exited(_) | End::Killed(_)) => Vec::new(),
        };
        let value_of = |pair: &[OsString]| match pair {
            [is_set, value] if !is_set.is_empty() => Some(value.to_string_lossy().into_owned()),
            _ => None,
        };
        let mut pairs = values.chunks(2).map(value_of);
        Ok(names.iter().map(|_| pairs.next().flatten()).collect())
    }

    /// What the shell makes of `words` with the variables that the last command left.
    pub(super) fn expand(&mut self, words: &[String]) -> Result<Result<Vec<OsString>, End>, Break> {
        let emit = &mut *self.emit;
        let expansion = Expansion { words, succeeding: !self.course.commands.failed };
        Ok(self.ports.shell.expand(expansion, &mut |bytes| emit(Event::Output(bytes)))?)
    }
}
