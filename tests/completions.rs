//! Completion, in real shells at a terminal: what stands on the line after the tabulator key.

use std::path::Path;
use std::process::Command;
use support::terminal::Terminal;

fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let records = dir.path().join("store/records");
    std::fs::create_dir_all(&records).unwrap();
    for (n, (container, comm)) in
        [("shop-web", "nginx"), ("bill-api", "python3"), ("evil$(touch x)", "e`v`il")]
            .iter()
            .enumerate()
    {
        let record = serde_json::json!({
            "time": format!("2026-03-10T10:30:0{n}Z"), "container_id": "4f3c9a1b2d5e6f708192",
            "container_name": container, "pid": 12 + n,
            "host_pid": 4711, "tid": 12, "host_tid": 4711,
            "signal": 11, "signal_name": "SIGSEGV", "comm": comm, "exe": format!("/usr/bin/{comm}"),
            "uid": 0, "gid": 0, "dump_mode": 1, "pattern": "core",
            "core_path": null, "host_path": null, "location": "volume",
            "size": null, "disk_size": null, "truncated": false, "outcome": "none", "reason": null
        });
        let name = records.join(format!("{n}.jsonl"));
        std::fs::write(name, serde_json::to_vec(&record).unwrap()).unwrap();
    }
    dir
}

/// What a person types before the tabulator key, and what is on the line then.
const TYPED: &[(&str, &str)] = &[
    ("oci-coredump unin", "oci-coredump uninstall "),
    ("oci-coredump list --revers", "oci-coredump list --reverse "),
    ("oci-coredump doctor conta", "oci-coredump doctor containerd "),
    ("oci-coredump list --store store shop", "oci-coredump list --store store shop-web "),
    ("oci-coredump info --store store container=bil", "container=bill-api "),
    ("oci-coredump info --store store comm=py", "comm=python3 "),
    (
        "oci-coredump info --store store record=20260310T103001",
        "record=20260310T103001Z-4711-4f3c9a1b2d5e",
    ),
    ("oci-coredump list --store store contai", "container="),
    // A name that a shell could read as a command is no candidate.
    ("oci-coredump list --store store evi", "oci-coredump list --store store evi"),
];

/// Types each line, asks the shell with `show` what it became, and compares.
fn check(shell: &str, start: &str, show: &str) {
    if Command::new(shell).arg("--version").output().is_err() {
        eprintln!("skipped: {shell} is not installed");
        return;
    }
    let dir = store();
    let program = Path::new(env!("CARGO_BIN_EXE_oci-coredump"));
    let home = dir.path().display();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "cd {home}; export HOME={home} TERM=dumb PATH={}:$PATH; stty cols 200 -echo; {start}",
        program.parent().unwrap().display()
    ));
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("ready.");
    let mut wrong = Vec::new();
    for (typed, expected) in TYPED {
        terminal.type_keys(&format!("{typed}\t{show}"));
        let line = terminal.wait_for(">>");
        let line = line.rsplit("<<").next().unwrap().trim_end_matches(">>").to_owned();
        if !line.contains(expected) || line.contains("touch") {
            wrong.push(format!("{typed:?}: expected {expected:?}, is {line:?}"));
        }
    }
    assert!(wrong.is_empty(), "{shell}:\n{}", wrong.join("\n"));
    assert!(!dir.path().join("x").exists());
}

#[test]
fn bash() {
    // ^X^T prints the line in brackets and empties it.
    let rc = "source <(oci-coredump completions bash); PS1=; bind \"set bell-style none\"; \
              bind -x '\"\\C-x\\C-t\": printf \"<<%s>>\" \"$READLINE_LINE\"; READLINE_LINE='";
    let start = format!(
        "echo '{}' > rc; echo 'echo ready.' >> rc; exec bash --rcfile rc -i",
        rc.replace('\'', "'\\''")
    );
    check("bash", &start, "\u{18}\u{14}");
}

/// Where zsh loads the completion as a function, as from the directory of a package.
#[test]
fn zsh() {
    let start = "mkdir functions; oci-coredump completions zsh > functions/_oci-coredump; \
                 echo 'fpath=($HOME/functions $fpath); autoload -Uz compinit' > .zshrc; \
                 echo 'compinit -u; PS1=; zle -N show' >> .zshrc; \
                 echo 'show() { print -n \"<<$BUFFER>>\"; BUFFER=; }' >> .zshrc; \
                 echo 'bindkey \"^X^T\" show; echo ready.' >> .zshrc; ZDOTDIR=$HOME exec zsh -i";
    check("zsh", start, "\u{18}\u{14}");
}

/// fish needs a terminal that answers it: it is asked without one.
#[test]
fn fish() {
    if Command::new("fish").arg("--version").output().is_err() {
        return eprintln!("skipped: fish is not installed");
    }
    let dir = store();
    let program = Path::new(env!("CARGO_BIN_EXE_oci-coredump")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    for (typed, expected) in TYPED {
        let script = format!("oci-coredump completions fish | source; complete -C '{typed}'");
        let output = Command::new("fish")
            .args(["--no-config", "-c", &script])
            .current_dir(&dir)
            .env("PATH", &path)
            .env("HOME", dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let word = expected.trim_end().rsplit(' ').next().unwrap();
        let is_candidate = said.lines().any(|line| line.split('\t').next() == Some(word));
        assert_eq!(is_candidate, !typed.ends_with(" evi"), "{typed}: {said}");
        assert!(!said.contains("touch"), "{typed}: {said}");
    }
}
