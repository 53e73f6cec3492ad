//! The text that `PowerShell` gets to read.
//!
//! **Architecture invariant:** pure, and the same contract as `script`: the text of the user starts
//! on line 4, and the last statement of it decides.
//!
//! A command ends with `$LASTEXITCODE` if its last statement was a program that failed, with 1 if
//! it was something else that failed, else with 0. Of its variables, those of `$env:` are carried.

use std::path::Path;

use crate::{
    environment::Environment,
    shell::script::{Save, Script, Variables, no_directory},
};

/// What comes before the name of the script.
pub(super) const ARGUMENTS: [&str; 4] = ["-NoLogo", "-NoProfile", "-NonInteractive", "-File"];

/// Whether this shell is `PowerShell`.
pub(super) fn is_powershell(shell: &Path) -> bool {
    shell.file_stem().is_some_and(|it| it == "pwsh" || it == "powershell")
}

/// The variables of the first command, each with a NUL after it.
pub(super) fn variables(environment: &Environment) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in environment.iter() {
        text.extend_from_slice(name.as_encoded_bytes());
        text.push(b'=');
        text.extend_from_slice(value.as_encoded_bytes());
        text.push(0);
    }
    text
}

/// The script of one command.
pub(super) fn script(script: &Script<'_>) -> Vec<u8> {
    let directory = quote(&script.directory.to_string_lossy());
    let gone = quote(&no_directory(script.user));
    let files = match script.variables {
        Variables::File(file) => quote_path(file),
        Variables::Statements(_) => String::new(),
    };
    let succeeding = if script.succeeding { "1" } else { "0" };
    let text = script.text.to_string_lossy();
    let mut lines = vec![
        format!(
            "try {{ Set-Location -LiteralPath {directory} -ErrorAction Stop }} \
             catch {{ [Console]::Error.WriteLine({gone}); exit 1 }}"
        ),
        format!(
            "& {{ foreach ($file in @({files})) {{ \
             foreach ($it in [IO.File]::ReadAllText($file).Split([char]0)) {{ \
             $at = $it.IndexOf('='); if (0 -lt $at) {{ [Environment]::SetEnvironmentVariable(\
             $it.Substring(0, $at), $it.Substring($at + 1)) }} }} }} }}"
        ),
        format!("$env:CODEBUILD_BUILD_SUCCEEDING = '{succeeding}'; $global:LASTEXITCODE = 0"),
        text.into_owned(),
        "$env:CODEBUILD_LAST_EXIT = if ($?) { 0 } elseif ($LASTEXITCODE) { $LASTEXITCODE } \
         else { 1 }"
            .to_owned(),
    ];
    let Save { variables, directory, .. } = script.save;
    lines.extend(variables.map(save_variables));
    lines.extend(directory.map(save_directory));
    lines.push("exit [int]$env:CODEBUILD_LAST_EXIT\n".to_owned());
    lines.join("\n").into_bytes()
}

fn save_variables(file: &Path) -> String {
    format!(
        "[IO.File]::WriteAllText({}, (-join ([Environment]::GetEnvironmentVariables()\
         .GetEnumerator() | ForEach-Object {{ \"$($_.Key)=$($_.Value)$([char]0)\" }})))",
        quote_path(file)
    )
}

fn save_directory(file: &Path) -> String {
    format!(
        "[IO.File]::WriteAllText({}, (Get-Location -PSProvider FileSystem).ProviderPath + \"`n\")",
        quote_path(file)
    )
}

/// A command that writes each word, as `PowerShell` expands it between double quotes in
/// `directory`, and a NUL.
pub(super) fn expansion(words: &[String], directory: &Path, answer: &Path) -> String {
    let words: Vec<String> = words.iter().map(|it| format!("\"{it}\"")).collect();
    format!(
        "Set-Location -LiteralPath {} -ErrorAction Stop; [IO.File]::WriteAllText({}, (-join \
         (@({}) | ForEach-Object {{ \"$_$([char]0)\" }}))); exit 0",
        quote_path(directory),
        quote_path(answer),
        words.join(", ")
    )
}

/// A command that is a shell for a person, with all variables, and ends as that does.
pub(super) fn interaction(shell: &Path) -> String {
    format!("& {} -NoLogo -NoProfile; exit $LASTEXITCODE", quote_path(shell))
}

fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// `text` as `PowerShell` leaves it as it is. It takes typographic quotes for quotes, too.
fn quote(text: &str) -> String {
    let is_quote = |it: char| matches!(it, '\'' | '\u{2018}'..='\u{201b}');
    let doubled =
        text.chars().flat_map(|it| std::iter::repeat_n(it, 1 + usize::from(is_quote(it))));
    format!("'{}'", doubled.collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use expect_test::expect;

    use super::*;

    #[test]
    fn the_text_of_the_user_is_on_line_four() {
        let it = Script {
            directory: Path::new("/a'b"),
            text: OsStr::new("$env:A = 'x'\nGet-Item nothing"),
            succeeding: true,
            user: None,
            variables: Variables::File(Path::new("/p/env.0.sh")),
            save: Save {
                variables: Some(Path::new("/p/env.2.sh")),
                directory: Some(Path::new("/p/dir.2.txt")),
                number: 7,
            },
        };
        expect![[r#"
            try { Set-Location -LiteralPath '/a''b' -ErrorAction Stop } catch { [Console]::Error.WriteLine('the working directory is gone: an earlier command left off in a folder that is not there now'); exit 1 }
            & { foreach ($file in @('/p/env.0.sh')) { foreach ($it in [IO.File]::ReadAllText($file).Split([char]0)) { $at = $it.IndexOf('='); if (0 -lt $at) { [Environment]::SetEnvironmentVariable($it.Substring(0, $at), $it.Substring($at + 1)) } } } }
            $env:CODEBUILD_BUILD_SUCCEEDING = '1'; $global:LASTEXITCODE = 0
            $env:A = 'x'
            Get-Item nothing
            $env:CODEBUILD_LAST_EXIT = if ($?) { 0 } elseif ($LASTEXITCODE) { $LASTEXITCODE } else { 1 }
            [IO.File]::WriteAllText('/p/env.2.sh', (-join ([Environment]::GetEnvironmentVariables().GetEnumerator() | ForEach-Object { "$($_.Key)=$($_.Value)$([char]0)" })))
            [IO.File]::WriteAllText('/p/dir.2.txt', (Get-Location -PSProvider FileSystem).ProviderPath + "`n")
            exit [int]$env:CODEBUILD_LAST_EXIT
        "#]]
        .assert_eq(&String::from_utf8(script(&it)).unwrap());
    }

    #[test]
    fn words_are_expanded_and_a_person_gets_a_shell() {
        let words = ["$env:A-x".to_owned(), "b c".to_owned()];
        expect![[r#"Set-Location -LiteralPath '/src' -ErrorAction Stop; [IO.File]::WriteAllText('/p/answer', (-join (@("$env:A-x", "b c") | ForEach-Object { "$_$([char]0)" }))); exit 0"#]].assert_eq(&expansion(&words, Path::new("/src"), Path::new("/p/answer")));
        expect!["& '/usr/bin/pwsh' -NoLogo -NoProfile; exit $LASTEXITCODE"]
            .assert_eq(&interaction(Path::new("/usr/bin/pwsh")));
    }

    #[test]
    fn it_is_known_by_its_name() {
        for (shell, want) in [("/bin/pwsh", true), ("pwsh.exe", true), ("/bin/sh", false)] {
            assert_eq!(is_powershell(Path::new(shell)), want, "{shell}");
        }
        assert_eq!(quote("it's \u{2019}"), "'it''s \u{2019}\u{2019}'");
    }
}
