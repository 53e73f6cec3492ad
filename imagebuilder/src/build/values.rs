//! What the values of instructions mean in a config.

use crate::{
    config,
    dockerfile::instruction::{self, Check, Healthcheck},
};

pub(super) fn command_line(command: &instruction::CommandLine) -> config::CommandLine {
    match command {
        instruction::CommandLine::Shell(word) => config::CommandLine::Shell(word.text.clone()),
        instruction::CommandLine::Exec(words) => {
            config::CommandLine::Exec(words.iter().map(|it| it.text.clone()).collect())
        }
    }
}

pub(super) fn healthcheck(check: &Healthcheck) -> config::Healthcheck {
    let Healthcheck::Check(check) = check else {
        return config::Healthcheck { test: vec!["NONE".into()], ..config::Healthcheck::default() };
    };
    let Check { command, interval, timeout, start_period, start_interval, retries } = check;
    let test = match command_line(command) {
        config::CommandLine::Exec(words) => ["CMD".to_owned()].into_iter().chain(words).collect(),
        config::CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text],
    };
    let given = |number: u64| Some(number).filter(|it| *it != 0);
    config::Healthcheck {
        test,
        interval: given(*interval),
        timeout: given(*timeout),
        start_period: given(*start_period),
        start_interval: given(*start_interval),
        retries: given(u64::from(*retries)),
    }
}

/// Signals by number, or by name with or without `SIG` (signal(7)), as docker takes them.
pub(super) fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 35] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV",
        "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN",
        "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS",
        "RTMIN",
    ];
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |it: &str| it.parse::<u8>().is_ok_and(|it| it <= 30);
    NAMES.contains(&name)
        || name == "RTMAX"
        || name.strip_prefix("RTMIN+").is_some_and(offset)
        || name.strip_prefix("RTMAX-").is_some_and(offset)
}
