//! Dockerfiles as a whole: what is read, what is refused, and that nothing breaks the parser.

use std::fmt::Write;

use expect_test::{Expect, expect};

use super::{
    instruction::{Command, CommandLine, Healthcheck, Source},
    *,
};

#[track_caller]
fn check(text: &str, want: Expect) {
    want.assert_eq(&show(text));
}

/// An instruction a line, each word with its place.
fn show(text: &str) -> String {
    let file = match Dockerfile::parse(text.as_bytes()) {
        Ok(file) => file,
        Err(err) => return show_error(&err),
    };
    let mut shown = String::new();
    for arg in &file.global_args {
        writeln!(shown, "global {}", show_arg(arg)).unwrap();
    }
    for stage in &file.stages {
        let Stage { image, platform, name, place, .. } = stage;
        write!(shown, "{}FROM {}", at(*place), word(image)).unwrap();
        push_option(&mut shown, "platform", platform.as_ref());
        push_option(&mut shown, "name", name.as_ref());
        shown.push('\n');
        for instruction in &stage.instructions {
            writeln!(shown, "{}", show_instruction(instruction)).unwrap();
        }
    }
    for Warning { kind, place } in &file.warnings {
        writeln!(shown, "{}warning: {kind}", at(*place)).unwrap();
    }
    shown
}

fn show_error(err: &DockerfileError) -> String {
    let hint = err.hint().map_or(String::new(), |it| format!("hint: {it}\n"));
    format!("{}error: {err}\n{hint}", at(err.place))
}

fn show_instruction(instruction: &Instruction) -> String {
    let mut shown = format!("{}{}", at(instruction.place), instruction.command.name());
    match &instruction.command {
        Command::Add(add) => {
            push_sources(&mut shown, &add.sources, &add.destination);
            push_option(&mut shown, "chown", add.chown.as_ref());
            push_option(&mut shown, "chmod", add.chmod.as_ref());
            push_option(&mut shown, "checksum", add.checksum.as_ref());
            push_switch(&mut shown, "link", add.link);
            push_switch(&mut shown, "keep-git-dir", add.keep_git_dir);
            push_switch(&mut shown, "unpack", add.unpack);
            push_all(&mut shown, "exclude", &add.exclude);
        }
        Command::Copy(copy) => {
            push_sources(&mut shown, &copy.sources, &copy.destination);
            push_option(&mut shown, "from", copy.from.as_ref());
            push_option(&mut shown, "chown", copy.chown.as_ref());
            push_option(&mut shown, "chmod", copy.chmod.as_ref());
            push_switch(&mut shown, "link", copy.link);
            push_switch(&mut shown, "parents", copy.parents);
            push_all(&mut shown, "exclude", &copy.exclude);
        }
        Command::Run(run) => {
            push_command(&mut shown, &run.command);
            push_all(&mut shown, "mount", &run.mounts);
            push_option(&mut shown, "network", run.network.as_ref());
            push_option(&mut shown, "security", run.security.as_ref());
            push_all(&mut shown, "device", &run.devices);
            run.heredocs.iter().for_each(|it| push_heredoc(&mut shown, it));
        }
        Command::Cmd(command) | Command::Entrypoint(command) => push_command(&mut shown, command),
        Command::Env(pairs) | Command::Label(pairs) => {
            for pair in pairs {
                write!(shown, " {} = {}", word(&pair.key), word(&pair.value)).unwrap();
            }
        }
        Command::Arg(args) => {
            for arg in args {
                write!(shown, " {}", show_arg(arg)).unwrap();
            }
        }
        Command::Healthcheck(Healthcheck::None) => shown.push_str(" none"),
        Command::Healthcheck(Healthcheck::Check(check)) => {
            push_command(&mut shown, &check.command);
            let times = (check.interval, check.timeout, check.start_period, check.start_interval);
            write!(shown, " times={times:?} retries={}", check.retries).unwrap();
        }
        Command::Shell(words) | Command::Expose(words) | Command::Volume(words) => {
            for it in words {
                write!(shown, " {}", word(it)).unwrap();
            }
        }
        Command::Workdir(text)
        | Command::User(text)
        | Command::StopSignal(text)
        | Command::Maintainer(text) => write!(shown, " {}", word(text)).unwrap(),
        Command::Onbuild(inner) => write!(shown, " {}", show_instruction(inner)).unwrap(),
    }
    shown
}

fn at(place: Place) -> String {
    format!("{}:{} ", place.line, place.column)
}

fn word(word: &Word) -> String {
    format!("`{}`@{}:{}", word.text, word.place.line, word.place.column)
}

fn show_arg(arg: &Arg) -> String {
    let default = arg.default.as_ref().map_or(String::new(), |it| format!(" = {}", word(it)));
    word(&arg.name) + &default
}

fn push_option(shown: &mut String, name: &str, value: Option<&Word>) {
    push_all(shown, name, value);
}

fn push_all<'a>(shown: &mut String, name: &str, values: impl IntoIterator<Item = &'a Word>) {
    values.into_iter().for_each(|it| write!(shown, " {name}={}", word(it)).unwrap());
}

fn push_switch(shown: &mut String, name: &str, switch: Option<Switch>) {
    if let Some(Switch { is_on, place }) = switch {
        write!(shown, " {name}={is_on}@{}:{}", place.line, place.column).unwrap();
    }
}

fn push_sources(shown: &mut String, sources: &[Source], destination: &Word) {
    for source in sources {
        match source {
            Source::Path(path) => write!(shown, " {}", word(path)).unwrap(),
            Source::Heredoc(heredoc) => push_heredoc(shown, heredoc),
        }
    }
    write!(shown, " to {}", word(destination)).unwrap();
}

fn push_heredoc(shown: &mut String, heredoc: &instruction::Heredoc) {
    let instruction::Heredoc { name, expands, place, .. } = heredoc;
    let text = heredoc.text();
    write!(shown, " <<{name}@{}:{} {text:?} expands={expands}", place.line, place.column).unwrap();
}

fn push_command(shown: &mut String, command: &CommandLine) {
    match command {
        CommandLine::Shell(text) => write!(shown, " shell {}", word(text)).unwrap(),
        CommandLine::Exec(words) => {
            shown.push_str(" exec");
            for it in words {
                write!(shown, " {}", word(it)).unwrap();
            }
        }
    }
}

#[test]
fn a_usual_file_is_read() {
    check(
        r#"# syntax=docker/dockerfile:1
ARG VERSION=1.2 OTHER

# The build.
FROM --platform=$BUILDPLATFORM node:${VERSION} AS Build
WORKDIR /src
copy --from=deps --chown=1000:$GID package*.json ./
RUN --mount=type=cache,target=/root/.npm npm ci && \
    # the tests too
    npm test

FROM scratch
LABEL a=b "c d"="e f"
ENV A=1 B="two words" \
    C=th\ ree
EXPOSE 80 443/tcp $PORTS
USER app:app
VOLUME /data /logs
VOLUME ["/a b"]
STOPSIGNAL SIGTERM
SHELL ["/bin/bash", "-c"]
HEALTHCHECK --interval=1m30s --timeout=0.5s --retries=3 CMD curl -f http://localhost/
ENTRYPOINT ["/app", "--x", "\u00e9"]
CMD run it
"#,
        expect![[r#"
            global `VERSION`@2:5 = `1.2`@2:13
            global `OTHER`@2:17
            5:1 FROM `node:${VERSION}`@5:32 platform=`$BUILDPLATFORM`@5:17 name=`build`@5:51
            6:1 WORKDIR `/src`@6:9
            7:1 COPY `package*.json`@7:36 to `./`@7:50 from=`deps`@7:13 chown=`1000:$GID`@7:26
            8:1 RUN shell `npm ci &&     npm test`@8:42 mount=`type=cache,target=/root/.npm`@8:13
            12:1 FROM `scratch`@12:6
            13:1 LABEL `a`@13:7 = `b`@13:9 `"c d"`@13:11 = `"e f"`@13:17
            14:1 ENV `A`@14:5 = `1`@14:7 `B`@14:9 = `"two words"`@14:11 `C`@15:5 = `th\ ree`@15:7
            16:1 EXPOSE `80`@16:8 `443/tcp`@16:11 `$PORTS`@16:19
            17:1 USER `app:app`@17:6
            18:1 VOLUME `/data`@18:8 `/logs`@18:14
            19:1 VOLUME `/a b`@19:9
            20:1 STOPSIGNAL `SIGTERM`@20:12
            21:1 SHELL `/bin/bash`@21:8 `-c`@21:21
            22:1 HEALTHCHECK shell `curl -f http://localhost/`@22:61 times=(90000000000, 500000000, 0, 0) retries=3
            23:1 ENTRYPOINT exec `/app`@23:13 `--x`@23:21 `é`@23:28
            24:1 CMD shell `run it`@24:5
        "#]],
    );
}

#[test]
fn every_flag_is_kept() {
    check(
        r#"FROM a
COPY --chmod=u+x --link --parents=false --exclude=*.md --exclude='a b' a b/
ADD --checksum=sha256:12 --keep-git-dir=true --unpack=FALSE --link=true --chown=a --chmod=755 --exclude=x https://example.com/a /b
RUN --network=none --security=insecure --device=x --mount=type=tmpfs,target=/x --mount=type=secret,"id=a b" true
COPY --from= -- --odd /x
"#,
        expect![[r#"
            1:1 FROM `a`@1:6
            2:1 COPY `a`@2:72 to `b/`@2:74 chmod=`u+x`@2:14 link=true@2:18 parents=false@2:25 exclude=`*.md`@2:51 exclude=`a b`@2:66
            3:1 ADD `https://example.com/a`@3:107 to `/b`@3:129 chown=`a`@3:81 chmod=`755`@3:91 checksum=`sha256:12`@3:16 link=true@3:61 keep-git-dir=true@3:26 unpack=false@3:46 exclude=`x`@3:105
            4:1 RUN shell `true`@4:109 mount=`type=tmpfs,target=/x`@4:59 mount=`type=secret,id=a b`@4:88 network=`none`@4:15 security=`insecure`@4:31 device=`x`@4:49
            5:1 COPY `--odd`@5:17 to `/x`@5:23
        "#]],
    );
}

#[test]
fn heredocs_are_read_with_their_instruction() {
    check(
        "FROM a
RUN <<EOF
echo $A
EOF
RUN cat <<'A' > /x && 3<<-B cat
one
A
	two
	B
COPY <<-a.txt <<\"b.txt\" /dir/
	x $Y
	\ta.txt
		a.txt
z
b.txt
ONBUILD COPY <<EOF /x
inner
EOF
RUN echo '<<EOF' a<<EOF <<<EOF
CMD cat <<EOF
",
        expect![[r#"
            1:1 FROM `a`@1:6
            2:1 RUN shell `<<EOF`@2:5 <<EOF@2:5 "echo $A\n" expands=true
            5:1 RUN shell `cat <<'A' > /x && 3<<-B cat`@5:5 <<A@5:9 "one\n" expands=false <<B@5:23 "two\n" expands=true
            10:1 COPY <<a.txt@10:6 "x $Y\n" expands=true <<b.txt@10:15 "\t\ta.txt\nz\n" expands=false to `/dir/`@10:25
            16:1 ONBUILD 16:9 COPY <<EOF@16:14 "inner\n" expands=true to `/x`@16:20
            19:1 RUN shell `echo '<<EOF' a<<EOF <<<EOF`@19:5
            20:1 CMD shell `cat <<EOF`@20:5
        "#]],
    );
}

#[test]
fn onbuild_holds_an_instruction() {
    check(
        "FROM a\nONBUILD  COPY --chown=1 . /src\nOnBuild run [\"make\"]",
        expect![[r#"
        1:1 FROM `a`@1:6
        2:1 ONBUILD 2:10 COPY `.`@2:25 to `/src`@2:27 chown=`1`@2:23
        3:1 ONBUILD 3:9 RUN exec `make`@3:14
    "#]],
    );
    let file = Dockerfile::parse(b"FROM a\nONBUILD RUN <<E\nx\nE\n").unwrap();
    let Command::Onbuild(inner) = &file.stages[0].instructions[0].command else { panic!() };
    assert_eq!(inner.full_source(), "RUN <<E\nx\nE");
    assert_eq!(inner.source, "RUN <<E");
}

#[test]
fn sources_are_what_was_written() {
    let text = "FROM a \\\n  AS b\nRUN a \\\n# c\n  b   \n\nENV  A=1\n";
    let file = Dockerfile::parse(text.as_bytes()).unwrap();
    let stage = &file.stages[0];
    assert_eq!(stage.source, "FROM a   AS b");
    let seen: Vec<_> = stage.instructions.iter().map(|it| (&*it.source, it.last_line)).collect();
    assert_eq!(seen, [("RUN a   b", 5), ("ENV  A=1", 7)]);
}

#[test]
fn arrays_are_arrays_only_if_they_are_json() {
    check(
        r#"FROM a
CMD [ "a" , "b\"c" ]
CMD []
CMD ["a", 'b']
CMD ['a']
CMD [ "$x" = y ]
CMD ["a"] && b
RUN ["/bin/sh", "-c", "x"]
COPY ["a b", "c", "/d e/"]
ADD ['a', 'b']
ENTRYPOINT [“a”]
HEALTHCHECK CMD ["x"]
VOLUME ['/x']
"#,
        expect![[r#"
            1:1 FROM `a`@1:6
            2:1 CMD exec `a`@2:7 `b"c`@2:13
            3:1 CMD exec
            4:1 CMD shell `["a", 'b']`@4:5
            5:1 CMD shell `['a']`@5:5
            6:1 CMD shell `[ "$x" = y ]`@6:5
            7:1 CMD shell `["a"] && b`@7:5
            8:1 RUN exec `/bin/sh`@8:6 `-c`@8:17 `x`@8:23
            9:1 COPY `a b`@9:7 `c`@9:14 to `/d e/`@9:19
            10:1 ADD `['a',`@10:5 to `'b']`@10:11
            11:1 ENTRYPOINT shell `[“a”]`@11:12
            12:1 HEALTHCHECK exec `x`@12:18 times=(0, 0, 0, 0) retries=0
            13:1 VOLUME `['/x']`@13:8
            4:5 warning: `CMD` is followed by what looks like a JSON array and is none: only double quotes are quotes there
            5:5 warning: `CMD` is followed by what looks like a JSON array and is none: only double quotes are quotes there
            10:5 warning: `ADD` is followed by what looks like a JSON array and is none: only double quotes are quotes there
            11:12 warning: `ENTRYPOINT` is followed by what looks like a JSON array and is none: only double quotes are quotes there
            13:8 warning: `VOLUME` is followed by what looks like a JSON array and is none: only double quotes are quotes there
        "#]],
    );
}

#[test]
fn environment_has_two_forms() {
    check(
        "FROM a\nENV A b c=d  'e'\nLABEL x\ty\nENV A=b C='d e'f G=\"h\\\"i\" J=\nENV A=$B${C:-d}\nLABEL \"a b\"=\"c\\\n d\"\n",
        expect![[r#"
            1:1 FROM `a`@1:6
            2:1 ENV `A`@2:5 = `b c=d  'e'`@2:7
            3:1 LABEL `x`@3:7 = `y`@3:9
            4:1 ENV `A`@4:5 = `b`@4:7 `C`@4:9 = `'d e'f`@4:11 `G`@4:18 = `"h\"i"`@4:20 `J`@4:27 = ``@4:29
            5:1 ENV `A`@5:5 = `$B${C:-d}`@5:7
            6:1 LABEL `"a b"`@6:7 = `"c d"`@6:13
            2:5 warning: `ENV name value` is an old form of `ENV name=value`
            3:7 warning: `LABEL name value` is an old form of `LABEL name=value`
        "#]],
    );
}

#[test]
fn healthchecks_are_read() {
    check(
        "FROM a\nHEALTHCHECK none\nHEALTHCHECK --start-period=1h --start-interval=1ms cmd  x y\nHEALTHCHECK --timeout=0 CMD x\n",
        expect![[r#"
            1:1 FROM `a`@1:6
            2:1 HEALTHCHECK none
            3:1 HEALTHCHECK shell `x y`@3:57 times=(0, 0, 3600000000000, 1000000) retries=0
            4:1 HEALTHCHECK shell `x`@4:29 times=(0, 0, 0, 0) retries=0
        "#]],
    );
}

#[test]
fn the_form_of_the_text_does_not_matter() {
    check(
        "\u{feff}# escape=`\r\n  fRoM a`\r\n:1\r\n\r\n\tRUN dir C:\\ `  \r\n  # c\r\n\r\n   b\r\nCMD x `",
        expect![[r#"
            2:3 FROM `a:1`@2:8
            5:2 RUN shell `dir C:\    b`@5:6
            9:1 CMD shell `x`@9:5
            7:1 warning: an empty line continues the instruction
        "#]],
    );
}

#[test]
fn stages_are_warned_about() {
    check(
        "FROM a AS b\nFROM c as B\nFROM d AS scratch\nMAINTAINER O'Brien",
        expect![[r#"
        1:1 FROM `a`@1:6 name=`b`@1:11
        2:1 FROM `c`@2:6 name=`b`@2:11
        3:1 FROM `d`@3:6 name=`scratch`@3:11
        4:1 MAINTAINER `O'Brien`@4:12
        2:11 warning: another stage has the name `b`
        3:11 warning: `scratch` is no good name for a stage: it already means something
        4:1 warning: `MAINTAINER` is deprecated: the label `org.opencontainers.image.authors` is its successor
    "#]],
    );
}

#[test]
fn wrong_files_are_errors() {
    for (text, want) in [
        ("", "1:1 error: there is no build stage in the file"),
        ("# only a comment\n", "1:1 error: there is no build stage in the file"),
        ("ARG a\n", "1:1 error: there is no build stage in the file"),
        ("RUN x\nFROM a", "1:1 error: `RUN` stands before the first `FROM`"),
        ("FROM a\n  RNU x", "2:3 error: unknown instruction `RNU`"),
        ("#!/bin/sh\nset -e\n", "2:1 error: unknown instruction `set`"),
        ("FROM", "1:1 error: `FROM` has no arguments"),
        ("FROM --platform=a", "1:1 error: `FROM` has no arguments"),
        ("FROM a b", "1:8 error: `FROM` is followed by an image, or by an image, `AS` and a name"),
        ("FROM a AS", "1:8 error: `FROM` is followed by an image, or by an image, `AS` and a name"),
        (
            "FROM a AS b # c",
            "1:8 error: `FROM` is followed by an image, or by an image, `AS` and a name",
        ),
        ("FROM a AS 1b", "1:11 error: `1b` cannot be the name of a stage"),
        ("FROM a AS b$x", "1:11 error: `b$x` cannot be the name of a stage"),
        ("FROM --plattform=x a", "1:6 error: `FROM` has no flag `--plattform`"),
        ("FROM a\nCOPY --form=b a b", "2:6 error: `COPY` has no flag `--form`"),
        ("FROM a\nCOPY --from b a b", "2:6 error: `--from` has no value"),
        ("FROM a\nCOPY --from=a --from=b a b", "2:15 error: `--from` is given twice"),
        ("FROM a\nCOPY --link=yes a b", "2:13 error: `--link` is `true` or `false`, not `yes`"),
        ("FROM a\nCOPY --link= a b", "2:6 error: `--link` has no value"),
        ("FROM a\nCOPY --chown=\"x a b", "2:14 error: `\"` is not closed"),
        ("FROM a\nCOPY --chown=${x a b", "2:14 error: `${` is not closed with `}`"),
        ("FROM a\nCMD --version", "2:5 error: `CMD` has no flag `--version`"),
        ("FROM a\nENV", "2:1 error: `ENV` has no arguments"),
        ("FROM a\nRUN \\\n", "2:1 error: `RUN` has no arguments"),
        ("FROM a\nCOPY a", "2:6 error: `COPY` has a source and no destination"),
        ("FROM a\nADD [\"a\"]", "2:5 error: `ADD` has a source and no destination"),
        ("FROM a\nCOPY []", "2:6 error: `COPY` has no arguments"),
        ("FROM a\nCOPY a <<b", "2:8 error: `COPY` has a heredoc as its destination"),
        ("FROM a\nCOPY <<a b\nx\n", "2:6 error: the heredoc `a` is not closed"),
        ("FROM a\nRUN x \\\n  <<a y", "3:3 error: the heredoc `a` is not closed"),
        ("FROM a\nRUN <<a <<b\na\nb \n", "2:9 error: the heredoc `b` is not closed"),
        ("FROM a\nCOPY <<\"a b\" /c\na b\n", "2:8 error: `\"` is not closed"),
        ("FROM a\nCOPY <<a\\ b /c\na b\n", "2:6 error: the heredoc `a` is not a source of `COPY`"),
        ("FROM a\nENV a", "2:5 error: `ENV a` has no value"),
        ("FROM a\nENV a=b c", "2:9 error: `c` has no `=`: `ENV` is followed by `name=value`"),
        ("FROM a\nLABEL =b", "2:7 error: there is no name before `=`"),
        ("FROM a\nARG a =b", "2:7 error: there is no name before `=`"),
        ("FROM a\nENV a='b", "2:7 error: `'` is not closed"),
        ("FROM a\nENV a=b \\\n  c=\"d ${e", "3:8 error: `${` is not closed with `}`"),
        ("FROM a\nWORKDIR ${x^^}", "2:9 error: `^` after `${x` is not supported"),
        ("FROM a\nUSER it's", "2:8 error: `'` is not closed"),
        ("FROM a\nSHELL /bin/sh -c", "2:7 error: `SHELL` is not followed by a JSON array"),
        ("FROM a\nSHELL []", "2:7 error: `SHELL` has no arguments"),
        (
            "FROM a\nCMD [\"a\", 1]",
            "2:5 error: the array has an element that is not a text in double quotes",
        ),
        ("FROM a\nVOLUME [\"/a\", \" \"]", "2:15 error: `VOLUME` has an empty path"),
        ("FROM a\nVOLUME []", "2:8 error: `VOLUME` has no arguments"),
        (
            "FROM a\nHEALTHCHECK curl x",
            "2:13 error: `HEALTHCHECK` is followed by `CMD` or `NONE`, not by `curl`",
        ),
        ("FROM a\nHEALTHCHECK CMD", "2:13 error: `HEALTHCHECK CMD` has no command"),
        ("FROM a\nHEALTHCHECK CMD []", "2:13 error: `HEALTHCHECK CMD` has no command"),
        ("FROM a\nHEALTHCHECK NONE x", "2:18 error: `HEALTHCHECK NONE` has no arguments"),
        ("FROM a\nHEALTHCHECK --interval=5 CMD x", "2:24 error: `5` is not a duration"),
        (
            "FROM a\nHEALTHCHECK --interval=1us CMD x",
            "2:24 error: `--interval` is shorter than 1ms",
        ),
        ("FROM a\nHEALTHCHECK --timeout=-1s CMD x", "2:23 error: `--timeout` is shorter than 1ms"),
        (
            "FROM a\nHEALTHCHECK --retries=-1 CMD x",
            "2:23 error: `--retries` is a number from 0, not `-1`",
        ),
        ("FROM a\nHEALTHCHECK --interval=1s", "2:1 error: `HEALTHCHECK` has no arguments"),
        ("FROM a\nONBUILD ONBUILD RUN x", "2:9 error: `ONBUILD` cannot follow `ONBUILD`"),
        ("FROM a\nONBUILD FROM x", "2:9 error: `FROM` cannot follow `ONBUILD`"),
        ("FROM a\nONBUILD MAINTAINER x", "2:9 error: `MAINTAINER` cannot follow `ONBUILD`"),
        ("FROM a\nONBUILD rum x", "2:9 error: unknown instruction `rum`"),
        ("FROM a\nONBUILD COPY x", "2:14 error: `COPY` has a source and no destination"),
        ("# syntax=a/b\nFROM a", "1:10 error: the syntax `a/b` is not supported"),
        ("# escape=x\nFROM a", "1:10 error: `x` cannot be the escape character"),
        ("FROM a\n日本 x", "2:1 error: unknown instruction `日本`"),
    ] {
        let got = show(text);
        assert_eq!(got.lines().next().unwrap_or_default(), want, "for {text:?}");
    }
}

#[test]
fn errors_say_what_to_do() {
    for (text, want) in [
        ("FROM a\nRNU x", "did you mean `RUN`?"),
        ("FROM a\nCOPY --form=b a b", "did you mean `--from`?"),
        ("FROM a\nCOPY --from b a b", "write `--from=VALUE`"),
        ("FROM a\nRUN <<EOF\nx", "write a line `EOF`, with nothing else on it, to close it"),
        ("ENV a=b", "only `ARG` may stand before `FROM`"),
        ("", "write `FROM IMAGE`, or `FROM scratch`"),
        ("FROM a\nSHELL sh", "write `[\"one\", \"two\"]`"),
    ] {
        let err = Dockerfile::parse(text.as_bytes()).unwrap_err();
        assert_eq!(err.hint().as_deref(), Some(want), "for {text:?}");
    }
    assert_eq!(Dockerfile::parse(b"FROM a\nxyzzy b").unwrap_err().hint(), None);
}

/// Every place that a `Debug` text shows.
fn places(debug: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for part in debug.split("Place { line: ").skip(1) {
        let (line, rest) = part.split_once(", column: ").unwrap();
        let (column, _) = rest.split_once(' ').unwrap();
        places.push(Place { line: line.parse().unwrap(), column: column.parse().unwrap() });
    }
    places
}

#[track_caller]
fn assert_sound(bytes: &[u8]) -> bool {
    let result = Dockerfile::parse(bytes);
    let text = String::from_utf8_lossy(bytes);
    let lengths: Vec<usize> = text.split('\n').map(|it| it.chars().count()).collect();
    for Place { line, column } in places(&format!("{result:?}")) {
        let is_inside = lengths.get(line - 1).is_some_and(|it| (1..=it + 1).contains(&column));
        assert!(is_inside, "{line}:{column} is outside of {text:?}");
    }
    result.is_ok()
}

#[test]
fn no_text_breaks_the_parser() {
    let seeds = [
        "# syntax=docker/dockerfile:1\n# escape=`\nARG a=b\nFROM x AS y\nRUN a `\n b\n",
        "FROM a\nCOPY --from=b --chown='c d' [\"e\", \"f\"]\nADD <<-E <<'F' /x\n\tg\n\tE\nF\n",
        "FROM a\nENV A=\"b ${C:-$D}\" E='f'\nLABEL g h\nONBUILD RUN <<X\ny\nX\n",
        "FROM a\nHEALTHCHECK --interval=1.5s --retries=2 CMD x\nEXPOSE 80/tcp\nVOLUME [\"é\"]\n",
        "\u{feff}FROM a\r\nRUN x \\\r\n# y\r\n\r\n z\r\nCMD [\"a\", 'b']\r\nSHELL [\"x\"]\r\n",
    ];
    let pieces = [
        "\\",
        "\n",
        "\r\n",
        "\"",
        "'",
        "$",
        "${",
        "}",
        "<<E",
        "E\n",
        "<<-'E'",
        "[",
        "]",
        "--",
        "=",
        " ",
        "\t",
        "#",
        "`",
        "é",
        "\u{feff}",
        "\0",
        "FROM ",
        "COPY ",
        "RUN ",
        "ONBUILD ",
        "\u{85}",
        "/",
        ":",
        ",",
        "\u{a0}",
        "# escape=`\n",
        "\\\n",
        "--x=y ",
        "-",
        "\x0b",
    ];
    let mut random = fastrand::Rng::with_seed(11);
    let mut read = 0;
    for _ in 0..20_000 {
        let mut bytes = random.choice(seeds).unwrap_or_default().as_bytes().to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(0..=bytes.len());
            let until = (at + random.usize(0..4)).min(bytes.len());
            let piece = random.choice(pieces).unwrap_or_default().as_bytes();
            match random.u8(..4) {
                0 => drop(bytes.splice(at..until, piece.iter().copied())),
                1 => bytes.truncate(at.max(1)),
                2 => drop(bytes.splice(at..at, random.u8(..).to_le_bytes())),
                _ => drop(bytes.splice(at..at, piece.iter().copied())),
            }
        }
        read += usize::from(assert_sound(&bytes));
    }
    assert!(read > 1000, "only {read} of the texts were read to their end");
}

#[test]
fn long_lines_are_not_slow() {
    let words = "é ".repeat(300_000);
    for text in [
        format!("FROM a\nCOPY {words} /x"),
        format!("FROM a\nENV {}", "é=\"é\" ".repeat(100_000)),
        format!("FROM a\nRUN {}", "a \\\n".repeat(500_000)),
        format!("FROM a\nCOPY {} /x", "--exclude=é ".repeat(50_000)),
        format!("FROM a\nWORKDIR {}", "${a:-".repeat(100_000)),
        format!("FROM a\nCMD {}", "[".repeat(500_000)),
        format!("FROM a\n{}", "ONBUILD ".repeat(100_000)),
        format!("FROM a\nCOPY {} /x\n{}", "<<a ".repeat(10_000), "a\n".repeat(10_000)),
        "x".repeat(1_000_000),
    ] {
        assert_sound(text.as_bytes());
    }
}
