//! The commands that need no running Farol.

use std::process::Command;

use crate::farol::{PLAIN_RULE, farol, folder, output, text, write};

#[test]
fn wrong_settings_are_all_named_at_once_and_nothing_starts() {
    let folder = folder();
    write(folder.path(), "farol.toml", "[http]\nlistn = \"127.0.0.1:1\"\n[pipeline]\nworkers = \"three\"\n");
    let run = output(
        farol(folder.path()).arg("run").env("FAROL_HTTP_BODY_LIMITS", "1MiB").env("KAFKA_BROKERS", "k:9092"),
    );
    assert_eq!(run.status.code(), Some(2));
    let error = text(&run.stderr);
    for expected in [
        "the settings have 4 problems",
        "farol.toml:2: there is no setting `http.listn` (did you mean `http.listen`?)",
        "farol.toml:4: pipeline.workers",
        "FAROL_HTTP_BODY_LIMITS: there is no setting of this name (did you mean `FAROL_HTTP_BODY_LIMIT`?)",
        "KAFKA_BROKERS: kafka.brokers: `farol run` keeps its own log",
    ] {
        assert!(error.contains(expected), "missing: {expected}\nin: {error}");
    }
    assert!(!folder.path().join("farol-data").exists());
}

#[test]
fn a_filter_for_log_lines_that_is_none_is_a_problem_of_the_settings() {
    let folder = folder();
    let run = output(farol(folder.path()).args(["run", "--log", "farol=loud"]));
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("telemetry.log"), "{}", text(&run.stderr));
}

#[test]
fn settings_shows_where_each_value_came_from() {
    let folder = folder();
    write(folder.path(), "farol.toml", "pipeline.workers = 5\n");
    let shown = output(
        farol(folder.path())
            .arg("settings")
            .env("MONITORING_PORT", "6000")
            .env("FAROL_HTTP_TOKEN", "0123456789abcdef"),
    );
    assert!(shown.status.success());
    let shown = text(&shown.stdout);
    let line = |start: &str| {
        shown.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}\n{shown}"))
    };
    assert!(line("workers = 5").ends_with("# farol.toml:1"), "{shown}");
    assert!(line("listen = \"127.0.0.1:6000\"").ends_with("# environment MONITORING_PORT"), "{shown}");
    assert!(line("dir = \"./farol-data\"").ends_with("# default"), "{shown}");
    assert!(!shown.contains("0123456789abcdef"), "a secret is shown\n{shown}");
}

#[test]
fn rules_check_prints_a_table_or_every_problem() {
    let folder = folder();
    let good = write(folder.path(), "good.toml", PLAIN_RULE);
    let checked = output(farol(folder.path()).args(["rules", "check"]).arg(&good));
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let table = text(&checked.stdout);
    assert!(
        table.contains("hot") && table.contains("above 40") && table.contains("1 rule, no problems"),
        "{table}"
    );

    let bad = write(
        folder.path(),
        "bad.toml",
        "[[rule]]\nname = \"hot\"\nselect = '{}'\nabov = 1\n[[rule]]\nname = \"hot\"\nselect = 'x='\nabove = 1\n",
    );
    let checked = output(farol(folder.path()).args(["rules", "check"]).arg(&good).arg(&bad));
    assert_eq!(checked.status.code(), Some(1));
    let problems = text(&checked.stderr);
    for expected in ["bad.toml:4", "abov", "bad.toml:7"] {
        assert!(problems.contains(expected), "missing: {expected}\n{problems}");
    }
    let doubled = output(farol(folder.path()).args(["rules", "check"]).arg(&good).arg(&good));
    assert_eq!(doubled.status.code(), Some(1));
    assert!(text(&doubled.stderr).contains("must be unique"), "{}", text(&doubled.stderr));
}

#[test]
fn completions_and_manual_pages_come_from_the_same_command_line() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish"] {
        let script = output(farol(folder.path()).args(["completions", shell]));
        assert!(script.status.success());
        assert!(text(&script.stdout).contains("replay"), "{shell}");
    }
    let bash = write(
        folder.path(),
        "farol.bash",
        &text(&output(farol(folder.path()).args(["completions", "bash"])).stdout),
    );
    let accepted = Command::new("bash").arg("-n").arg(bash).status().unwrap();
    assert!(accepted.success());
    let manual = folder.path().join("man");
    assert!(output(farol(folder.path()).arg("man").arg(&manual)).status.success());
    for page in ["farol.1", "farol-run.1", "farol-rules-check.1", "farol-view-rebuild.1"] {
        assert!(manual.join(page).is_file(), "{page}");
    }
}

#[test]
fn help_has_examples_and_wrong_arguments_exit_with_2() {
    let folder = folder();
    for command in ["run", "replay", "load", "simulate"] {
        let help = text(&output(farol(folder.path()).args([command, "--help"])).stdout);
        assert!(help.contains("Examples:") && help.contains(&format!("farol {command}")), "{help}");
    }
    assert_eq!(output(farol(folder.path()).args(["run", "--demos"])).status.code(), Some(2));
    assert_eq!(output(&mut farol(folder.path())).status.code(), Some(2));
    let unwatchable = output(farol(folder.path()).args(["simulate", "services", "--name", "shop,a b"]));
    assert_eq!(unwatchable.status.code(), Some(2), "{}", text(&unwatchable.stderr));
    let version = text(&output(farol(folder.path()).arg("version")).stdout);
    assert_eq!(version.trim(), concat!("farol ", env!("CARGO_PKG_VERSION")));
}
