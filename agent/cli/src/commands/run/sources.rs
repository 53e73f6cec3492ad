//! Which folders a build has its sources in.

use std::path::{Path, PathBuf};

use crate::{
    args::Run,
    failure::{Failure, Kind},
};

/// The folders, as they were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// The folder with the buildspec; the current one if there is none.
    pub(super) primary: Option<PathBuf>,
    /// The others, each with its identifier.
    pub(super) secondary: Vec<(String, PathBuf)>,
}

/// The most secondary sources, and the longest identifier (CodeBuild user guide, "Quotas").
const MOST: usize = 12;
const LONGEST: usize = 127;

impl Sources {
    /// What `-C` and `-s` say.
    pub(super) fn new(args: &Run) -> Result<Self, Failure> {
        let mut sources = Self { primary: args.directory.clone(), secondary: Vec::new() };
        for source in &args.local_agent.source {
            match identified(source) {
                Some((id, folder)) => sources.add(id, folder)?,
                None => sources.set_primary(source)?,
            }
        }
        Ok(sources)
    }

    fn set_primary(&mut self, folder: &Path) -> Result<(), Failure> {
        match &self.primary {
            Some(other) if other != folder => {
                let (other, folder) = (other.display(), folder.display());
                let message = format!("`{other}` and `{folder}` cannot both be the source folder");
                let hint = format!("a secondary source has an ID: -s ID:{folder}");
                Err(Failure::new(Kind::Input, message).hint(hint))
            }
            _ => {
                self.primary = Some(folder.to_owned());
                Ok(())
            }
        }
    }

    fn add(&mut self, id: &str, folder: &Path) -> Result<(), Failure> {
        let wrong = |message: String| Err(Failure::new(Kind::Input, message));
        if LONGEST < id.len() {
            return wrong(format!("the ID of a source has at most {LONGEST} characters: `{id}`"));
        }
        if self.secondary.iter().any(|it| it.0 == id) {
            return wrong(format!("there are two secondary sources `{id}`"));
        }
        if self.secondary.len() == MOST {
            return wrong(format!("there are more than {MOST} secondary sources"));
        }
        self.secondary.push((id.to_owned(), folder.to_owned()));
        Ok(())
    }
}

/// The identifier and the folder in `id:DIR`.
fn identified(source: &Path) -> Option<(&str, &Path)> {
    let (id, folder) = source.to_str()?.split_once(':')?;
    let is_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let is_id = !id.is_empty() && id.chars().all(is_word) && !folder.is_empty();
    is_id.then(|| (id, Path::new(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::run::LocalAgent;

    #[track_caller]
    fn check(directory: Option<&str>, sources: &[&str], want: &str) {
        let args = Run {
            directory: directory.map(Into::into),
            local_agent: LocalAgent {
                source: sources.iter().map(Into::into).collect(),
                ..LocalAgent::default()
            },
            ..Run::default()
        };
        let told = match Sources::new(&args) {
            Ok(Sources { primary, secondary }) => {
                let primary = primary.map(|it| it.display().to_string()).unwrap_or_default();
                let more = secondary.iter().map(|(id, it)| format!(" {id}={}", it.display()));
                format!("{primary}{}", more.collect::<String>())
            }
            Err(failure) => failure.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        assert_eq!(told, want);
    }

    #[test]
    fn plain_folders_are_the_source_and_those_with_an_id_are_secondary() {
        check(None, &[], "");
        check(Some("a"), &[], "a");
        check(None, &["a", "lib:../b", "x_1:/c:d"], "a lib=../b x_1=/c:d");
        check(None, &["lib:b", "a"], "a lib=b");
        check(Some("a"), &["a"], "a");
        check(None, &["./a:b"], "./a:b");
        check(None, &["a:"], "a:");
    }

    #[test]
    fn contradictions_are_refused() {
        check(Some("a"), &["b"], "error: `a` and `b` cannot both be the source folder");
        check(None, &["a", "b"], "error: `a` and `b` cannot both be the source folder");
        check(None, &["x:a", "x:b"], "error: there are two secondary sources `x`");
        let many: Vec<String> = (0..13).map(|it| format!("s{it}:d")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(None, &many, "error: there are more than 12 secondary sources");
        let long = format!("{}:d", "x".repeat(128));
        let want =
            format!("error: the ID of a source has at most 127 characters: `{}`", "x".repeat(128));
        check(None, &[&long], &want);
    }
}
