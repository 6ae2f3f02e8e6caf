//! The commands at a terminal: its width, its pager, and nothing binary.

#[path = "command_line/scene.rs"]
#[allow(dead_code, reason = "a part of it is for the other tests of the command line")]
mod scene;

use scene::{PROGRAM, Scene};
use std::process::Command;
use support::terminal::Terminal;

/// A command on a terminal of so many columns, with these variables.
fn terminal(scene: &Scene, columns: u32, variables: &str, line: &str) -> Terminal {
    let line = line.replace('@', &format!("{}/", scene.0.path().display()));
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "stty cols {columns} rows 24; export TERM=xterm TZ=UTC; {variables} {PROGRAM} {line}; \
         echo status $?."
    ));
    Terminal::start(&command)
}

#[test]
fn on_a_terminal() {
    let scene = Scene::new();
    let list = "list --store @store --no-pager";
    let wide = terminal(&scene, 160, "", list).wait_for("status 0.");
    assert!(wide.contains("Tue 2026-03-10 10:30:00 UTC") && wide.contains("UPLOADED"), "{wide}");
    let narrow = terminal(&scene, 70, "NO_COLOR=1", list).wait_for("status 0.");
    assert!(!narrow.contains("UPLOADED") && narrow.contains("2026-03-10 10:30:00"), "{narrow}");
    for row in narrow.lines().filter(|row| row.contains("2026") || row.contains("TIME")) {
        assert!(row.trim_end().chars().count() <= 70, "{row:?}");
    }
    // Binary does not go there.
    let line = "export --core @program --core-only -o -";
    let said = terminal(&scene, 80, "", line).wait_for("status 2.");
    assert!(said.contains("stdout is a terminal") && !said.contains("ELF"), "{said}");
}

/// Which pager is started, how, and when none is.
#[test]
fn the_pager() {
    let scene = Scene::new();
    let pager = scene.path("pager");
    let script = "#!/bin/sh\necho \"pager $* [$LESS] [$LESSSECURE] [$LESSOPEN]\"; cat; exit 3\n";
    std::fs::write(&pager, script).unwrap();
    std::fs::set_permissions(&pager, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let own = format!(
        "LESSOPEN='|touch {0}/opened %s' OCI_COREDUMP_PAGER='{0}/pager -x'",
        scene.0.path().display()
    );
    let list = "list --store @store";
    // Its exit status is not that of the verb.
    let said = terminal(&scene, 160, &own, list).wait_for("status 0.");
    assert!(said.contains("pager -x [FRSX] [1] []") && said.contains("nginx"), "{said}");
    let said = terminal(&scene, 160, &own, "list --store @store nobody").wait_for("status 1.");
    assert!(said.contains("no crash in"), "{said}");
    let both = format!("PAGER=/bin/false {own}");
    assert!(
        terminal(&scene, 160, &both, "info --store @store")
            .wait_for("status 1.")
            .contains("pager -x")
    );
    let generic = format!("PAGER='{}/pager'", scene.0.path().display());
    assert!(terminal(&scene, 160, &generic, list).wait_for("status 0.").contains("pager  [FRSX]"));
    for (variables, line) in [
        (own.as_str(), "list --store @store --no-pager"),
        (own.as_str(), "list --store @store --json"),
        (own.as_str(), "list --store @store | cat"),
        ("OCI_COREDUMP_PAGER=", list),
        ("PAGER=cat", list),
        ("PAGER=no-such-pager", list),
    ] {
        let said = terminal(&scene, 160, variables, line).wait_for("status 0.");
        assert!(said.contains("nginx") && !said.contains("pager -x"), "{variables} {line}: {said}");
    }
    // A pager that leaves at once is a reader that goes away.
    terminal(&scene, 160, "PAGER=true", list).wait_for("status 0.");
}
