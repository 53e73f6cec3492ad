//! Collecting and packing the artifacts, one after another.
//!
//! **Architecture invariant:** knows no files and no places; those are for the port.

use crate::{
    artifacts::{ArtifactsError, Selection},
    buildspec::Artifacts,
    event::Event,
    shell::End,
};

use super::{Break, Build, Reason};

/// Stands for a signal, and is none: those who pack know no time, and are asked to stop like this
/// when it is over.
const OUT_OF_TIME: i32 = 0;

impl Build<'_> {
    /// Collects and packs all artifacts that the buildspec wants. One that fails does not keep the
    /// others from being packed.
    pub(super) fn upload(&mut self) -> Result<(), Break> {
        let plan = self.plan;
        let primary = plan.artifacts().map(|it| (None, it));
        let secondary = plan.secondary_artifacts();
        let others = secondary.iter().map(|it| (Some(it.identifier.as_str()), &it.artifacts));
        let mut failed = None;
        for (identifier, artifacts) in primary.into_iter().chain(others) {
            if identifier.is_some() {
                (self.emit)(Event::SecondaryArtifacts { identifier });
            }
            match self.package(identifier, artifacts) {
                Err(Break::Failed(reason)) => failed = failed.or(Some(reason)),
                packed => packed?,
            }
        }
        if primary.is_some() && secondary.is_empty() {
            (self.emit)(Event::SecondaryArtifacts { identifier: None });
        }
        failed.map_or(Ok(()), |reason| Err(Break::Failed(reason)))
    }

    fn package(&mut self, identifier: Option<&str>, artifacts: &Artifacts) -> Result<(), Break> {
        let selection = self.select(identifier, artifacts)?;
        let shell = &mut *self.ports.shell;
        let mut stopped = || match shell.stop_requested() {
            None => shell.out_of_time().then_some(OUT_OF_TIME),
            signal => signal,
        };
        let packed = self.ports.artifacts.package(&selection, &mut stopped, self.emit);
        let packed = packed.map_err(|err| broken(identifier, err))?;
        self.packed.push(packed);
        Ok(())
    }

    /// What to collect, as the shell expands it with the variables that the build ends with, in
    /// the source folder.
    fn select(
        &mut self,
        identifier: Option<&str>,
        artifacts: &Artifacts,
    ) -> Result<Selection, Break> {
        let words = Selection::words(artifacts);
        let values = match words.is_empty() {
            true => Ok(Vec::new()),
            false => self.expand(&words)?,
        };
        let values = values.map_err(|end| match end {
            End::Stopped(signal) => Break::Stopped(signal),
            End::TimedOut => Break::TimedOut,
            End::Exited(_) | End::Killed(_) => {
                broken(identifier, ArtifactsError::Expansion { text: words.join(" ") })
            }
        })?;
        Ok(Selection {
            identifier: identifier.map(str::to_owned),
            collision: self.plan.choices().collision,
            ..Selection::new(artifacts, &values)
        })
    }
}

fn broken(identifier: Option<&str>, error: ArtifactsError) -> Break {
    match (error, identifier) {
        (ArtifactsError::Stopped { signal: OUT_OF_TIME }, _) => Break::TimedOut,
        (ArtifactsError::Stopped { signal }, _) => Break::Stopped(signal),
        (error, None) => Break::Failed(Reason::Artifacts(error)),
        (error, Some(identifier)) => {
            let identifier = identifier.to_owned();
            Break::Failed(Reason::SecondaryArtifacts { identifier, error })
        }
    }
}
