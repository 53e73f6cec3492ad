//! Secrets of a build: fetched from AWS (moto) or from a file, given to the commands, and shown
//! nowhere.

use std::{fs, os::unix::fs::PermissionsExt as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rbuild_tests::{
    Finished, Sandbox,
    http::{Answer, Request, serve},
    servers::Moto,
    store,
};

use crate::sandbox;

/// A sandbox with a buildspec with this `env`, whose phase `build` has these commands.
fn sandbox_for(env: &str, commands: &[&str]) -> Sandbox {
    let env: Vec<String> = env.lines().map(|it| format!("  {it}")).collect();
    let commands: Vec<String> = commands.iter().map(|it| format!("      - {it}")).collect();
    let (env, commands) = (env.join("\n"), commands.join("\n"));
    let text = format!("version: 0.2\nenv:\n{env}\nphases:\n  build:\n    commands:\n{commands}\n");
    sandbox(&[("buildspec.yml", &text)])
}

/// A command that prints the digest of a variable, which proves its value and does not show it.
fn proof(variable: &str) -> String {
    format!("printf '{variable} %s\\n' \"$(printf %s \"${variable}\" | sha256sum)\"")
}

/// Asserts that the commands had this value in a variable.
#[track_caller]
fn assert_proof(run: &Finished, variable: &str, value: &str) {
    let want = format!("\n{variable} {}", store::hex(value.as_bytes()));
    assert!(run.stdout.contains(&want), "`{variable}` is another: {run}");
}

/// Asserts that none of these is printed, nor written to any file of the sandbox but its source.
#[track_caller]
fn assert_hidden(sandbox: &Sandbox, run: &Finished, values: &[&str]) {
    for value in values {
        let is_shown = run.stdout.contains(value) || run.stderr.contains(value);
        assert!(!is_shown, "a secret is shown: {run}");
        let folders = [sandbox.home(), sandbox.store(), sandbox.path().join("tmp")];
        for file in folders.iter().flat_map(|it| store::files(it)) {
            let text = fs::read(&file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            assert!(!text.contains(value), "a secret is in {}", file.display());
        }
    }
}

/// Runs a script with boto3; it must work.
fn boto(sandbox: &Sandbox, script: &str) -> Finished {
    Moto::shared().python(sandbox, script, &[]).ok()
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Finished {
    Moto::shared().known_to(sandbox.rbuild(["run"].iter().chain(args))).go()
}

#[test]
fn parameters_are_given_to_commands_and_masked() {
    let names: Vec<String> = (0..25).map(|it| format!("P{it}: /many/p{it}")).collect();
    let env = format!("parameter-store:\n  {}", names.join("\n  "));
    let proofs: Vec<String> = (0..25).map(|it| proof(&format!("P{it}"))).collect();
    let mut commands = vec!["echo \"it is $P0, $P24\"", "printf %s \"$P1\" | sed 's/./&\\n/3'"];
    commands.extend(proofs.iter().map(String::as_str));
    let sandbox = sandbox_for(&env, &commands);
    boto(
        &sandbox,
        "for n in range(25):\n  client('ssm').put_parameter(Name=f'/many/p{n}', \
         Value=f'value-number-{n}!', Type='SecureString')",
    );
    let run = run(&sandbox, &[]);
    run.has_status(0);
    assert!(run.stdout.contains("\nit is ***, ***\n"), "{run}");
    for it in 0..25 {
        assert_proof(&run, &format!("P{it}"), &format!("value-number-{it}!"));
    }
    assert_hidden(&sandbox, &run, &["value-number-0!", "value-number-24!"]);
    // What a command made of a value is another value.
    assert!(run.stdout.contains("\nval\nue-number-1!"), "{run}");
}

#[test]
fn parameters_are_asked_for_by_arn_version_label_and_as_lists() {
    let env = "parameter-store:\n  OLD: forms:1\n  NEW: forms\n  LABEL: /forms/l:stable\n  \
               ARN: arn:aws:ssm:us-east-2:123456789012:parameter/forms/arn\n  LIST: /forms/list\n  \
               AGAIN: forms";
    let variables = ["OLD", "NEW", "LABEL", "ARN", "LIST", "AGAIN"];
    let proofs = variables.map(proof);
    let sandbox = sandbox_for(env, &proofs.each_ref().map(String::as_str));
    boto(
        &sandbox,
        "ssm = client('ssm')\n\
         put = lambda c, n, v, t='String': c.put_parameter(Name=n, Value=v, Type=t, Overwrite=True)\n\
         put(ssm, 'forms', 'first'); put(ssm, 'forms', 'second')\n\
         put(ssm, '/forms/l', 'labelled'); put(ssm, '/forms/l', 'unlabelled')\n\
         ssm.label_parameter_version(Name='/forms/l', ParameterVersion=1, Labels=['stable'])\n\
         put(client('ssm', region_name='us-east-2'), '/forms/arn', 'elsewhere')\n\
         put(ssm, '/forms/list', 'one,two', 'StringList')",
    );
    let run = run(&sandbox, &[]);
    run.has_status(0);
    let values = ["first", "second", "labelled", "elsewhere", "one,two", "second"];
    for (variable, value) in variables.iter().zip(values) {
        assert_proof(&run, variable, value);
    }
}

#[test]
fn secrets_are_asked_for_by_key_stage_version_and_arn() {
    let script = "sm = client('secretsmanager')\n\
        text = lambda p: json.dumps({'user': 'ann-user', 'password': p, 'port': 5432, 'o': {'a': [1]}})\n\
        sm.create_secret(Name='shop', SecretString=text('old-password'))\n\
        old = sm.describe_secret(SecretId='shop')['VersionIdsToStages']\n\
        sm.put_secret_value(SecretId='shop', SecretString=text('new-password'))\n\
        print(list(old)[0])\n\
        print(client('secretsmanager', region_name='us-east-2').create_secret(Name='far', \
        SecretString='far-away')['ARN'])";
    let made = boto(&sandbox(&[]), script);
    let mut lines = made.stdout.lines();
    let (old, arn) = (lines.next().expect("a version"), lines.next().expect("an ARN"));
    let whole =
        r#"{"user": "ann-user", "password": "new-password", "port": 5432, "o": {"a": [1]}}"#;
    let references = [
        ("WHOLE", "shop:::".to_owned(), whole),
        ("PASSWORD", "shop:password".to_owned(), "new-password"),
        ("PORT", "shop:port::".to_owned(), "5432"),
        ("OBJECT", "shop:o".to_owned(), r#"{"a":[1]}"#),
        ("PREVIOUS", "shop:password:AWSPREVIOUS".to_owned(), "old-password"),
        ("VERSION", format!("shop:password::{old}"), "old-password"),
        ("FAR", arn.to_owned(), "far-away"),
    ];
    let env =
        references.each_ref().map(|(name, reference, _)| format!("  {name}: \"{reference}\""));
    let proofs = references.each_ref().map(|(name, ..)| proof(name));
    let mut commands = proofs.each_ref().map(String::as_str).to_vec();
    commands.push("echo \"$PASSWORD, $PREVIOUS, $FAR\"");
    let sandbox = sandbox_for(&format!("secrets-manager:\n{}", env.join("\n")), &commands);
    let run = run(&sandbox, &[]);
    run.has_status(0);
    for (name, _, value) in &references {
        assert_proof(&run, name, value);
    }
    assert!(run.stdout.contains("\n***, ***, ***\n"), "{run}");
    assert_hidden(&sandbox, &run, &["new-password", "old-password", "far-away"]);
}

#[test]
fn all_secrets_that_are_not_there_are_told_at_once_and_nothing_runs() {
    let env = "parameter-store:\n  A: /nowhere/a\n  B: /there\nsecrets-manager:\n  C: nowhere\n  \
               D: keyed:none\n  E: binary";
    let sandbox = sandbox_for(env, &["touch ran"]);
    boto(
        &sandbox,
        "client('ssm').put_parameter(Name='/there', Value='there', Type='String')\n\
         sm = client('secretsmanager')\n\
         sm.create_secret(Name='keyed', SecretString=json.dumps({'some': 'hidden-value'}))\n\
         sm.create_secret(Name='binary', SecretBinary=b'\\x00\\x01')",
    );
    let run = run(&sandbox, &[]);
    run.fails(2, &["/nowhere/a", "`A`", "`C`", "ResourceNotFoundException", "`none`", "`some`"]);
    run.fails(2, &["`E`", "binary"]);
    assert!(!run.stderr.contains("/there"), "{run}");
    assert!(!sandbox.src().join("ran").exists());
    assert_hidden(&sandbox, &run, &["hidden-value"]);
}

#[test]
fn one_secret_that_is_not_there_is_shown_in_the_buildspec() {
    let run = run(&sandbox_for("parameter-store:\n  A: /nowhere/alone", &["true"]), &[]);
    run.fails(2, &["buildspec.yml:4:5", "A: /nowhere/alone", "parameter does not exist"]);
}

#[test]
fn what_aws_does_not_give_is_a_failure_of_the_outside() {
    let denied = r#"{"__type":"AccessDeniedException","Message":"User: u is not authorized to perform: ssm:GetParameters on resource: r"}"#;
    let port = serve(move |_: &Request| Answer::of(400, denied));
    let sandbox = sandbox_for("parameter-store:\n  A: /denied", &["touch ran"]);
    let run = Moto::shared().known_to(sandbox.rbuild(["run"]));
    let run = run.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")).go();
    run.fails(3, &["/denied", "AccessDeniedException", "`ssm:GetParameters`", "`eu-west-1`"]);
    let alone = sandbox.rbuild(["run"]).env("AWS_EC2_METADATA_DISABLED", "true");
    alone.go().fails(3, &["no AWS region is set", "AWS_REGION"]);
    let keyless = sandbox.rbuild(["run"]).env("AWS_EC2_METADATA_DISABLED", "true");
    keyless.env("AWS_REGION", "eu-west-1").go().fails(3, &["there are no AWS credentials"]);
    assert!(!sandbox.src().join("ran").exists());
}

#[test]
fn a_file_of_secrets_stands_for_aws() {
    let env = "parameter-store:\n  A: /file/a\nsecrets-manager:\n  B: shop:password\n  C: other";
    let proofs = ["A", "B", "C"].map(proof);
    let mut commands = proofs.each_ref().map(String::as_str).to_vec();
    commands.push("echo \"it is $A $B $C\"");
    let sandbox = sandbox_for(env, &commands);
    for (name, text) in [
        (
            "s.env",
            "# local\n/file/a='value-of-a'\nshop={\"password\": \"value-of-b\"}\nexport C=value-of-c\n",
        ),
        (
            "s.json",
            r#"{"A": "value-of-a", "shop": {"password": "value-of-b"}, "other": "value-of-c"}"#,
        ),
    ] {
        let path = sandbox.write(format!("../secret/{name}"), text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let path = path.display().to_string();
        let run = sandbox.rbuild(["run", "--secrets", &path]).ok();
        for (variable, value) in [("A", "value-of-a"), ("B", "value-of-b"), ("C", "value-of-c")] {
            assert_proof(&run, variable, value);
        }
        assert!(run.stdout.contains("\nit is *** *** ***\n"), "{run}");
        assert!(!run.stderr.contains("others may read"), "{run}");
        assert_hidden(&sandbox, &run, &["value-of-a", "value-of-b", "value-of-c"]);
    }
    let path = sandbox.write("../secret/few.env", "A=value-of-a\n").display().to_string();
    let run = sandbox.rbuild(["run", "--secrets", &path]).go();
    run.fails(2, &["`shop:password`, `shop`, `B`", "`other`, `C`", "others may read"]);
    assert!(!run.stderr.contains("value-of-a"), "{run}");
}

#[test]
fn a_value_of_many_lines_is_masked_line_by_line() {
    let sandbox = sandbox_for(
        "parameter-store:\n  KEY: /key",
        &[
            "echo \"$KEY\"",
            "echo $KEY",
            &proof("KEY"),
            "printf 'first-'; sleep 0.1; echo 'line-of-key'",
        ],
    );
    let key = "-----BEGIN-----\nfirst-line-of-key\nab\n-----END-----\n";
    let path = sandbox.write("../secret/s.json", format!("{{\"KEY\": {key:?}}}"));
    let run = sandbox.rbuild(["run", "--secrets", &path.display().to_string()]).ok();
    assert_proof(&run, "KEY", key);
    assert!(run.stdout.contains("\n*** *** ab ***\n"), "{run}");
    assert_hidden(&sandbox, &run, &["first-line-of-key"]);
}

/// A repository that git reads by plain files, for those who have the password.
fn repository(sandbox: &Sandbox) -> String {
    let bare = sandbox.path().join("bare.git");
    let script = "git init -q made && cd made && git config user.email m@e && git config user.name m \
        && git commit -q --allow-empty -m first && cd .. \
        && git clone -q --bare made \"$1\" && git -C \"$1\" update-server-info";
    let bare_name = bare.display().to_string();
    sandbox.run("sh", ["-c", script, "sh", &bare_name]).in_dir(sandbox.path()).ok();
    let allowed = format!("Basic {}", BASE64_STANDARD.encode("me:repository-password"));
    let port = serve(move |request| {
        if request.header("authorization") != Some(&*allowed) {
            return Answer::of(401, "").with("WWW-Authenticate", "Basic realm=\"it\"");
        }
        let path = request.path.strip_prefix("/bare.git/").unwrap_or_default();
        match fs::read(bare.join(path)) {
            Ok(bytes) => Answer::of(200, bytes),
            Err(_) => Answer::of(404, ""),
        }
    });
    format!("http://127.0.0.1:{port}/bare.git")
}

#[test]
fn git_gets_the_credentials_of_the_source_if_the_buildspec_asks_for_it() {
    for (asked, status) in [("yes", 0), ("no", 1)] {
        // Without the home of whoever runs rbuild, git knows nothing of their helpers.
        let env = format!("git-credential-helper: {asked}\nvariables:\n  HOME: /nonexistent");
        let sandbox = sandbox_for(
            &env,
            &[
                "export GIT_TERMINAL_PROMPT=0",
                "git clone -q \"$(git remote get-url origin)\" copy",
                "git -C copy log --format=%s",
                "sed 's/.*me:/is /;s/@.*/ there/' \"$(dirname \"$(dirname \"$(command -v rbuild)\")\")\"/git-cred*",
            ],
        );
        let url = repository(&sandbox);
        let helper = "[credential]\n\thelper = \"!f() { echo username=me; echo password=repository-password; }; f\"\n";
        sandbox.write("../home/.gitconfig", helper);
        let script = "git init -q . && git remote add origin \"$1\"";
        sandbox.run("sh", ["-c", script, "sh", &url]).ok();
        let run = sandbox.rbuild(["run"]).go();
        run.has_status(status);
        let (output, _) = (&run.stdout, &run.stderr);
        assert_eq!(output.contains("\nfirst\n"), status == 0, "{run}");
        assert_eq!(output.contains("\nis *** there\n"), status == 0, "{run}");
        assert!(!output.contains("repository-password"), "{run}");
    }
}

#[test]
fn without_credentials_of_the_source_there_is_a_warning() {
    let sandbox = sandbox_for("git-credential-helper: yes", &["true"]);
    let run = sandbox.rbuild(["run"]).ok();
    assert!(run.stderr.contains("warning: `git-credential-helper` has nothing to give"), "{run}");
}

#[test]
fn no_way_to_show_a_build_shows_a_secret() {
    let text = r#"version: 0.2
env:
  parameter-store: {LINES: /lines, WORD: /word}
  exported-variables: [ONE, ALL, FINE]
phases:
  build:
    commands:
      - echo "$LINES"; echo $LINES; echo "$WORD" >&2
      - for at in $(seq 1 16); do printf %s "$WORD" | cut -c $at | tr -d '\n'; done; echo
      - mkdir "d-$WORD"; echo > "d-$WORD/f-$WORD"; ONE="has $WORD"; ALL="$LINES"; FINE=1; export ONE ALL FINE
      - 'false simple-secret-77'
artifacts:
  files: ['d-*/*', none-simple-secret-77]
  name: name-$WORD
"#;
    let value = "pa\"ss\\wo\nrd-line two\n  \"indented\": \"hunter2x\"\n";
    let shown = ["pa\"ss", "pa\\\"ss", "rd-line two", "indented", "hunter2x", "simple-secret-77"];
    for mode in ["codebuild", "plain", "github", "progress", "json"] {
        let sandbox = sandbox(&[("buildspec.yml", text)]);
        let values = serde_json::json!({ "/lines": value, "/word": "simple-secret-77" });
        let path = sandbox.write("../secret/s.json", values.to_string()).display().to_string();
        let how: &[&str] = if mode == "json" { &["--json"] } else { &["--log", mode] };
        let args = ["run", "--secrets", &path].into_iter().chain(how.iter().copied());
        let files = ["output", "summary"].map(|it| sandbox.home().join(it));
        let run = sandbox.rbuild(args).env("GITHUB_OUTPUT", &files[0]);
        let run = run.env("GITHUB_STEP_SUMMARY", &files[1]).go();
        run.has_status(1);
        assert!(run.stdout.contains("***"), "{run}");
        // The state for --resume lies there, too.
        let names = [sandbox.home().join(".local/state/rbuild/artifacts")];
        names.iter().filter(|it| it.exists()).for_each(|it| fs::remove_dir_all(it).unwrap());
        assert_hidden(&sandbox, &run, &shown);
        if mode == "github" {
            let output = fs::read_to_string(&files[0]).unwrap();
            assert!(output.starts_with("FINE<<") && !output.contains("ONE"), "{output}");
        }
    }
}
