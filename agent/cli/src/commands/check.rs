//! `rbuild check`
//!
//! **Architecture invariant:** every file is looked at, whatever is wrong with the others.

use std::{
    io::{self, Read as _},
    path::Path,
};

use rbuild_agent::{
    check::{
        self, Checked, Finding,
        rule::{self, Level, UNREADABLE},
    },
    choice::Masking,
    secret::Redactor,
};
use serde_json::json;

use super::run::LARGEST_BUILDSPEC as LARGEST;
use crate::{
    args::check::{Check, Format},
    console,
    failure::{Failure, Kind},
    host, input,
};

mod formats;
mod shellcheck;

use formats::Report;

pub(crate) fn check(args: &Check) -> Result<(), Failure> {
    if args.list_rules {
        return console::print_data(rules(args.format));
    }
    let reports: Vec<Report> = args.files.iter().map(|it| report(it, args)).collect();
    let text = match args.format {
        Format::Auto if is_workflow() => formats::github(&reports),
        Format::Auto | Format::Text => formats::text(&reports),
        Format::Json => formats::json(&reports),
        Format::Sarif => formats::sarif(&reports),
        Format::Github => formats::github(&reports),
    };
    console::print_data(text)?;
    verdict(&reports)
}

/// Whether this is a step of GitHub Actions.
fn is_workflow() -> bool {
    host::variable("GITHUB_ACTIONS").is_some_and(|it| it == "true")
}

/// Everything was said, but for the exit status.
fn verdict(reports: &[Report]) -> Result<(), Failure> {
    let has_errors = reports.iter().any(|it| it.count(Level::Error) > 0);
    match reports.iter().any(|it| it.is_machine_problem) {
        true => Err(Failure::told(Kind::Outside)),
        false if has_errors => Err(Failure::told(Kind::Input)),
        false => Ok(()),
    }
}

/// Looks at one file.
fn report(path: &Path, args: &Check) -> Report {
    let is_stdin = path == Path::new("-");
    let file = if is_stdin { "<stdin>".to_owned() } else { path.display().to_string() };
    let bytes = match is_stdin {
        true => read_stdin(),
        false => input::read(path, LARGEST),
    };
    match bytes {
        Ok(bytes) => looked_at(file, &bytes, args),
        Err(err) => unreadable(file, &err, args),
    }
}

fn read_stdin() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes)?;
    match LARGEST < bytes.len() as u64 {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

fn looked_at(file: String, bytes: &[u8], args: &Check) -> Report {
    let mut checked = check::check(bytes);
    if !args.no_shellcheck {
        ask_shellcheck(&file, &mut checked, args);
    }
    let findings = checked.settle(&args.rules.0);
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text).to_owned();
    let redactor = Redactor::new(checked.secrets, Masking::Lines);
    Report { file, text, findings, redactor, is_machine_problem: false }
}

fn ask_shellcheck(file: &str, checked: &mut Checked, args: &Check) {
    let shellcheck::Look { findings, unlooked } = shellcheck::look(&checked.scripts);
    for finding in findings {
        checked.add(finding);
    }
    match unlooked {
        None => {}
        Some(shellcheck::Unlooked::Absent) if !args.verbose => {}
        Some(why) => console::say(&format!("note: {file}: {why}")),
    }
}

/// A file that was not looked at.
fn unreadable(file: String, err: &io::Error, args: &Check) -> Report {
    let level = args.rules.0.level(UNREADABLE, Some(Level::Error));
    let hint = match err.kind() {
        io::ErrorKind::IsADirectory => Some("name the file in it".to_owned()),
        _ => None,
    };
    let message = format!("`{file}` could not be read: {err}");
    let rule = UNREADABLE.into();
    let finding = Finding { place: None, end: None, rule, level, message, hint, aws: None };
    Report {
        file,
        text: String::new(),
        findings: level.map(|_| finding).into_iter().collect(),
        redactor: Redactor::default(),
        is_machine_problem: is_machine_problem(err),
    }
}

/// Whether trying again may help: it is not the file that is wrong.
fn is_machine_problem(err: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(err);
    let of_machine = [Errno::IO, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::STALE];
    errno.is_some_and(|it| of_machine.contains(&it))
}

/// All rules.
fn rules(format: Format) -> String {
    if format == Format::Json {
        let rules = rule::all().iter().map(|it| {
            json!({ "name": it.name, "level": it.level.map_or("off", Level::name), "about": it.about })
        });
        let rules: Vec<_> = rules.collect();
        return format!("{:#}\n", json!({ "version": formats::VERSION, "rules": rules }));
    }
    let rows = rule::all().iter().map(|it| {
        [it.name.to_owned(), it.level.map_or("off", Level::name).to_owned(), it.about.to_owned()]
    });
    console::table(&rows.collect::<Vec<_>>())
}
