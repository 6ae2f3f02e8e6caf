//! Attacks on whoever opens a core: bundles that `export` did not make, files that change while
//! they are read, debuggers that their input takes over.

#[path = "stacks/kept.rs"]
#[allow(dead_code)]
mod kept;

use kept::{BACKTRACE, Crash, has_stack};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::require;
use support::stacks::succeed;
use support::terminal::Terminal;
use support::wait::wait_for;

/// Longer than anything takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn myself() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

fn is_root() -> bool {
    myself() == 0
}

/// An archive by hand: names are what the test says.
struct Forged(tar::Builder<Vec<u8>>);

impl Forged {
    fn new() -> Self {
        Forged(tar::Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: tar::EntryType, name: &str, content: &[u8], link: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o4777);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, name, content, "")
    }

    fn link(self, name: &str, to: &str) -> Self {
        self.entry(tar::EntryType::Symlink, name, b"", to)
    }

    fn write(self, path: &Path) {
        let packed = zstd::encode_all(&self.0.into_inner().unwrap()[..], 1).unwrap();
        std::fs::write(path, packed).unwrap();
    }
}

#[test]
fn bundles_that_export_does_not_make() {
    use tar::EntryType as Type;
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("ran");
    let script = format!("python open({marker:?}, 'w')\n").into_bytes();
    let good = || Forged::new().file("b/core", b"x");
    let cases = [
        ("start-up file", good().file("b/.gdbinit", &script), "b/.gdbinit"),
        ("settings", good().file("b/.config/gdb/gdbinit", &script), "b/.config/gdb/gdbinit"),
        ("no top", Forged::new().file("core", b"x"), "one directory"),
        ("two tops", good().file("c/README", b""), "one directory"),
        ("twice", good().file("b/core", b"y"), "twice"),
        ("up", good().file("b/root/../../x", b""), "b/root/../../x"),
        ("top up", Forged::new().file("../core", b"x"), "../core"),
        ("absolute", Forged::new().file("/core", b"x"), "/core"),
        ("core link", Forged::new().link("b/core", "/etc/shadow"), "b/core"),
        ("link out", good().link("b/exe", "/bin/sh"), "out of root/"),
        ("link up", good().link("b/lib/x", "../root/../../x"), "out of root/"),
        ("through", good().link("b/lib/x", "../root/x").file("b/lib/x/y", b""), "b/lib/x/y"),
        ("link in root", good().link("b/root/x", "/etc"), "b/root/x"),
        ("hard link", good().entry(Type::Link, "b/root/x", b"", "/etc/shadow"), "b/root/x"),
        ("directory", good().entry(Type::Directory, "b/root/x", b"", ""), "b/root/x"),
        ("device", good().entry(Type::Char, "b/root/x", b"", ""), "b/root/x"),
        ("fifo", good().entry(Type::Fifo, "b/root/x", b"", ""), "b/root/x"),
        ("pax", good().entry(Type::XHeader, "b/root/x", b"14 path=/etc/x\n", ""), "b/root/x"),
        ("file as directory", good().file("b/root/x", b"").file("b/root/x/y", b""), "b/root/x/y"),
        ("script beside", good().file("b/debug/x-gdb.py", &script), "b/debug/x-gdb.py"),
        ("nothing", Forged::new(), "no core in it"),
    ];
    for (what, forged, says) in cases {
        let path = dir.path().join("b.tar.zst");
        forged.write(&path);
        refused(what, &path, says);
    }
    let many = (0..20_001).fold(good(), |b, n| b.file(&format!("b/root/{n}"), b""));
    let path = dir.path().join("many.tar.zst");
    many.write(&path);
    refused("many", &path, "entries");
    // Sizes that are not there.
    let mut header = tar::Header::new_gnu();
    header.set_size(1 << 60);
    header.set_path("b/core").unwrap();
    header.set_cksum();
    std::fs::write(&path, zstd::encode_all(&header.as_bytes()[..], 1).unwrap()).unwrap();
    refused("large", &path, "b/core");
    assert!(!marker.exists());
}

fn refused(what: &str, path: &Path, says: &str) {
    let out = Command::new(env!("CARGO_BIN_EXE_oci-coredump"))
        .args(["debug", "--debugger", "/bin/true"])
        .arg(path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.code() == Some(1) && said.contains(says) && said.lines().count() == 1,
        "{what}: {said}"
    );
}

/// The owner of a core appends to it, or truncates it, while `export` waits for its reader.
#[test]
fn a_core_that_changes_while_it_is_exported() {
    if !require::programs(&["gdb", "gcc", "tar"]) {
        return;
    }
    let crash = Crash::new();
    let mut noise = vec![0u8; 16 << 20];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    let mut core = std::fs::OpenOptions::new().append(true).open(&crash.core).unwrap();
    core.write_all(&noise).unwrap();
    let before = std::fs::read(&crash.core).unwrap();
    let payload =
        Forged::new().file("coredump/gdb.sh", b"#!/bin/sh\ntouch ran\n").0.into_inner().unwrap();
    for grows in [true, false] {
        std::fs::write(&crash.core, &before).unwrap();
        let mut export = crash
            .command("export", &["-o", "-"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = export.stdout.take().unwrap();
        let mut packed = vec![0; 1 << 10];
        out.read_exact(&mut packed).unwrap();
        let mut owner = std::fs::OpenOptions::new().append(true).open(&crash.core).unwrap();
        if grows {
            owner.write_all(&payload).unwrap();
        } else {
            owner.set_len(before.len() as u64 - (1 << 20)).unwrap();
        }
        out.read_to_end(&mut packed).unwrap();
        let ended = export.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "{said}");
        let bundle = crash.path("out.tar.zst");
        std::fs::write(&bundle, &packed).unwrap();
        let there = tempfile::tempdir().unwrap();
        let list = succeed(Command::new("tar").args(["--zstd", "-tf"]).arg(&bundle)).stdout;
        let list = String::from_utf8(list).unwrap();
        assert_eq!(list.lines().filter(|l| l.ends_with("gdb.sh")).count(), 1, "{list}");
        succeed(
            Command::new("tar").arg("-C").arg(there.path()).args(["--zstd", "-xf"]).arg(&bundle),
        );
        let got = std::fs::read(there.path().join("coredump/core")).unwrap();
        let kept = if grows { before.len() } else { before.len() - (1 << 20) };
        assert_eq!(got.len(), before.len());
        assert!(got[..kept] == before[..kept] && got[kept..].iter().all(|b| *b == 0));
        let readme = std::fs::read_to_string(there.path().join("coredump/README")).unwrap();
        for text in [&said, &readme] {
            assert_eq!(text.contains("1048576 of its"), !grows, "{text}");
        }
        has_stack(&crash.run("debug", &[&[bundle.to_str().unwrap()], &BACKTRACE[..]].concat()));
    }
}

/// A core of 1 TiB that is all holes but its ends.
#[test]
fn a_large_sparse_core_is_exported_in_moments() {
    if !require::programs(&["gdb", "gcc"]) {
        return;
    }
    let crash = Crash::new();
    let core = std::fs::OpenOptions::new().write(true).open(&crash.core).unwrap();
    core.set_len(1 << 40).unwrap();
    let started = Instant::now();
    let bundle = crash.export("b.tar.zst", &[]);
    has_stack(&crash.run("debug", &[&[bundle.to_str().unwrap()], &BACKTRACE[..]].concat()));
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
}

#[test]
fn an_export_that_is_interrupted_leaves_nothing() {
    if !require::programs(&["gdb", "gcc"]) {
        return;
    }
    let crash = Crash::new();
    let mut noise = vec![0u8; 64 << 20];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    std::fs::OpenOptions::new().append(true).open(&crash.core).unwrap().write_all(&noise).unwrap();
    let out = crash.path("out");
    std::fs::create_dir(&out).unwrap();
    let target = out.join("b.tar.zst");
    let mut export = crash.command("export", &["-o", target.to_str().unwrap()]).spawn().unwrap();
    let fds = format!("/proc/{}/fd", export.id());
    // It has made its file: one of that directory.
    wait_for("the file", SOON, || {
        std::fs::read_dir(&fds).is_ok_and(|all| {
            all.flatten()
                .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(&out)))
        }) || export.try_wait().unwrap().is_some()
    });
    signal(&export, "KILL");
    export.wait().unwrap();
    let left: Vec<_> = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty() || left == ["b.tar.zst"], "{left:?}");

    // And whatever the umask, only its owner may read it.
    let shell = "umask 0; exec \"$@\"";
    let mut words = vec!["-c".to_owned(), shell.to_owned(), "sh".to_owned()];
    let command = crash.command("export", &["-o", target.to_str().unwrap()]);
    words.push(command.get_program().to_str().unwrap().to_owned());
    words.extend(command.get_args().map(|a| a.to_str().unwrap().to_owned()));
    succeed(Command::new("sh").args(words));
    assert_eq!(target.metadata().unwrap().mode() & 0o777, 0o600);
}

fn signal(child: &Child, name: &str) {
    succeed(Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()));
}

/// Python for gdb: the attacks of something that has taken it over.
fn python(code: &str) -> Vec<String> {
    ["-A", "-batch", "-A", "-ex", "-A"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("python exec({code:?})")])
        .collect()
}

#[test]
fn nothing_that_comes_with_a_core_or_a_caller_is_read() {
    if !require::programs(&["gdb", "gcc"]) {
        return;
    }
    let crash = Crash::new();
    let marker = crash.path("ran");
    std::fs::set_permissions(crash.dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let evil = format!("python open({:?}, 'w')\n", marker.to_str().unwrap());
    let home = crash.path("home");
    std::fs::create_dir_all(home.join(".config/gdb")).unwrap();
    for name in [".gdbinit", ".gdbearlyinit", ".config/gdb/gdbinit", ".config/gdb/gdbearlyinit"] {
        std::fs::write(home.join(name), &evil).unwrap();
    }
    // A bundle made by a container: its exported executable has a script beside it, and one in it.
    let bundle = crash.export("b.tar.zst", &[]);
    let there = crash.path("there");
    std::fs::create_dir(&there).unwrap();
    succeed(Command::new("tar").arg("-C").arg(&there).args(["--zstd", "-xf"]).arg(&bundle));
    let exe = std::fs::canonicalize(there.join("b/exe")).unwrap();
    let inline =
        [b"\x04evil\n".as_slice(), format!("open({marker:?}, 'w')\n\0").as_bytes()].concat();
    std::fs::write(crash.path("section"), inline).unwrap();
    succeed(
        Command::new("objcopy")
            .arg(format!("--add-section=.debug_gdb_scripts={}", crash.path("section").display()))
            .arg("--set-section-flags=.debug_gdb_scripts=alloc,readonly,merge,strings")
            .arg(&exe),
    );
    let beside = PathBuf::from(format!("{}-gdb.py", exe.display()));
    std::fs::write(&beside, format!("open({marker:?}, 'w')\n")).unwrap();
    succeed(Command::new("sh").arg("-c").arg(format!(
        "cd {} && tar -c --no-recursion $(find b -type f -o -type l) | zstd -qf -o ../evil.tar.zst",
        there.display()
    )));
    let evil = crash.path("evil.tar.zst");
    let mut args = vec![evil.to_str().unwrap().to_owned()];
    args.extend(python(
        "import os\nprint('ENV', sorted(os.environ))\n\
         print('CWD', os.getcwd() == os.environ['HOME'], os.listdir('.'))\n\
         print('FDS', [f for f in os.listdir('/proc/self/fd') if \
         os.path.exists('/proc/self/fd/'+f) and 'secret' in os.readlink('/proc/self/fd/'+f)])",
    ));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let secret = crash.path("secret");
    std::fs::write(&secret, "x").unwrap();
    let command = crash.command("debug", &args);
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("exec 7<{}; exec \"$@\"", secret.display()))
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(&home)
        .env("HOME", &home)
        .env("XDG_CONFIG_HOME", home.join(".config"))
        .env("GDBHISTFILE", home.join("history"))
        .env("PYTHONSTARTUP", home.join("x.py"))
        .env("LD_DEBUG_OUTPUT", home.join("ld"))
        .env("DEBUGINFOD_URLS", "http://127.0.0.1:1/")
        .env("A_SECRET", "1");
    let out = succeed(&mut shell);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("CWD True []") && text.contains("FDS []"), "{text}");
    let env = text.lines().find(|l| l.starts_with("ENV")).unwrap();
    for name in ["A_SECRET", "DEBUGINFOD_URLS", "GDBHISTFILE", "PYTHONSTARTUP", "LD_DEBUG_OUTPUT"] {
        assert!(!env.contains(name), "{env}");
    }
    assert!(!marker.exists(), "something of the bundle or the caller was run: {text}");
    // The same by hand, with the script of the bundle, from a directory that is called anything.
    let odd = crash.path("a'b\"c $(touch ran) `touch ran`;:\n ");
    std::fs::create_dir(&odd).unwrap();
    std::fs::rename(there.join("b"), odd.join("b")).unwrap();
    std::fs::write(odd.join("b/.gdbinit"), format!("python open({marker:?}, 'w')\n")).unwrap();
    let out = succeed(
        Command::new("sh")
            .args(["./gdb.sh", "-batch", "-ex", "bt"])
            .current_dir(odd.join("b"))
            .env("HOME", odd.join("b")),
    );
    has_stack(&out);
    has_stack(&succeed(Command::new(odd.join("b/gdb.sh")).args(["-batch", "-ex", "bt"])));
    assert!(!marker.exists() && !odd.join("b/ran").exists(), "gdb.sh ran something");
}

#[test]
fn the_callers_terminal_is_out_of_reach() {
    if !require::programs(&["gdb", "gcc", "script", "python3"]) {
        return;
    }
    let crash = Crash::new();
    let ran = crash.path("ran");
    // It types into every terminal that it can open. An outer shell would read it afterwards.
    let attack = format!(
        "import os,fcntl,glob\n\
         print('SESSION', os.getsid(0)==os.getpid(), os.isatty(0), \
         os.get_terminal_size(0).columns)\nparent=os.getppid()\n\
         def t(p):\n try:\n  fd=os.open(p,os.O_RDWR|os.O_NOCTTY)\n except OSError as e:\n  return \
         'no'\n for c in '\\ntouch {}\\n':\n  try:\n   fcntl.ioctl(fd,0x5412,c.encode())\n  except \
         OSError as e:\n   return 'opened'\n return 'typed'\n\
         print('PARENT', [t('/proc/%d/fd/%d'%(parent,n)) for n in range(3)])\n\
         print('TTY', t('/dev/tty'))",
        ran.display()
    );
    let args = python(&attack);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let debug = crash.command("debug", &args);
    let words: Vec<String> = std::iter::once(debug.get_program())
        .chain(debug.get_args())
        .map(|w| format!("'{}'", w.to_str().unwrap().replace('\'', r"'\''")))
        .collect();
    let script = crash.path("script.sh");
    std::fs::write(
        &script,
        format!(
            "stty cols 91\nstty -a >a\n{}\nstty -a >b\ncmp a b && echo SAME\n",
            words.join(" ")
        ),
    )
    .unwrap();
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        &format!("cd {} && sh -i <&0 ./script.sh; echo BACK; sh -i", crash.dir.path().display()),
    ]);
    let mut terminal = Terminal::start(&shell);
    let said = terminal.wait_for("BACK");
    assert!(said.contains("SESSION True True 91") && said.contains("SAME"), "{said}");
    if is_root() {
        assert!(said.contains("PARENT ['no', 'no', 'no']"), "{said}");
    } else {
        assert!(!said.contains("PARENT ['typed"), "{said}");
    }
    // Whatever was typed, the shell has read it before this.
    terminal.type_keys("echo THE'RE'\n");
    terminal.wait_for("THERE");
    assert!(!ran.exists(), "the debugger has typed into its caller's shell");
    terminal.type_keys("exit\n");
    terminal.wait_for_end();
}

#[test]
fn a_person_at_the_debugger() {
    if !require::programs(&["gdb", "gcc", "script"]) {
        return;
    }
    let crash = Crash::new();
    let mut terminal = Terminal::start(&crash.command("debug", &["-A", "-q"]));
    terminal.wait_for("(gdb) ");
    terminal.type_keys("print 6*7\n");
    terminal.wait_for("= 42");
    // An interrupt reaches what the debugger does, not the debugger.
    terminal.type_keys("python import time; print('SLE'+'EPS', flush=True); time.sleep(600)\n");
    terminal.wait_for("SLEEPS");
    terminal.type_keys("\x03");
    terminal.wait_for("(gdb) ");
    terminal.type_keys("print 6*8\n");
    terminal.wait_for("= 48");
    terminal.type_keys("quit\n");
    terminal.wait_for_end();
}

/// One whose debugger waits for words from its stdin, and its directory.
#[allow(clippy::zombie_processes, reason = "the caller waits for it")]
fn waiting(crash: &Crash, umask: &str) -> (Child, PathBuf) {
    let debug = crash.command("debug", &["-A", "-q", "-A", "-ex", "-A", "echo READY\\n"]);
    let mut child = Command::new("sh")
        .args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"])
        .arg(debug.get_program())
        .args(debug.get_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let home = "python import os; print('AT<'+os.getcwd()+'>', flush=True)\n";
    child.stdin.as_mut().unwrap().write_all(home.as_bytes()).unwrap();
    let mut said = Vec::new();
    let out = child.stdout.as_mut().unwrap();
    let mut piece = [0; 1024];
    loop {
        let n = out.read(&mut piece).unwrap();
        assert!(n > 0, "it has ended: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&said);
        if let Some((at, _)) = text.split_once("AT<").and_then(|(_, rest)| rest.split_once('>')) {
            return (child, Path::new(at).parent().unwrap().to_owned());
        }
    }
}

#[test]
fn copies_are_private_and_go_whatever_happens() {
    if !require::programs(&["gdb", "gcc"]) {
        return;
    }
    let crash = Crash::new();
    let (mut first, one) = waiting(&crash, "000");
    let (mut second, two) = waiting(&crash, "077");
    let mut owners = Vec::new();
    for dir in [&one, &two] {
        owners.push(dir.join("crash").metadata().unwrap().uid());
        // Root's own directory, through which the debugger reaches its own.
        let meta = dir.metadata().unwrap();
        let mode = if is_root() { 0o711 } else { 0o700 };
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (mode, myself()));
        let mut stack = vec![dir.join("crash"), dir.join("home")];
        let mut seen = 0;
        while let Some(path) = stack.pop() {
            let meta = path.symlink_metadata().unwrap();
            if meta.is_symlink() {
                continue;
            }
            seen += 1;
            let mode = if meta.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(
                (meta.mode() & 0o7777, meta.uid()),
                (mode, owners[owners.len() - 1]),
                "{path:?}"
            );
            if meta.is_dir() {
                stack.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
        }
        assert!(seen > 5, "{dir:?}");
    }
    if is_root() {
        assert_ne!(owners[0], owners[1]);
        let other = Command::new("setpriv")
            .args(["--reuid", "4242", "--regid", "4242", "--clear-groups", "head", "-c4"])
            .arg(one.join("crash/core"))
            .output()
            .unwrap();
        assert!(!other.status.success());
    }
    // A sweep leaves what is in use.
    succeed(&mut crash.command("vacuum", &["--keep", "9"]));
    assert!(one.exists() && two.exists());
    // End of file on its stdin ends it.
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
    wait_for("removal after the end", SOON, || !one.exists());
    signal(&second, "TERM");
    assert!(second.wait().unwrap().code().is_none());
    wait_for("removal after SIGTERM", SOON, || !two.exists());
    for name in ["HUP", "INT", "QUIT", "KILL"] {
        let (mut child, dir) = waiting(&crash, "022");
        signal(&child, name);
        let status = child.wait().unwrap();
        assert!(status.code().is_none(), "{name}: {status}");
        wait_for(name, SOON, || !dir.exists());
    }
}

/// Paths outside of the target directory that go when the test ends, also if it fails.
struct Planted([PathBuf; 3]);

impl Drop for Planted {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// What a killed process could not clean up is swept, and what only looks like that is not.
#[test]
fn what_others_left_behind_is_swept() {
    let store = tempfile::tempdir().unwrap();
    let name = |end: &str| {
        PathBuf::from(format!("/var/tmp/oci-coredump-debug-{}{end}", std::process::id()))
    };
    let planted = Planted([name("left"), name("link"), name("foreign")]);
    let [left, link, foreign] = &planted.0;
    std::fs::create_dir_all(left.join("crash/root")).unwrap();
    std::fs::write(left.join("crash/core"), "x").unwrap();
    symlink(store.path(), link).unwrap();
    std::fs::create_dir(foreign).unwrap();
    if is_root() {
        const ID: u32 = 2_147_451_000;
        std::fs::write(left.join(format!("of-{ID}")), "").unwrap();
        std::os::unix::fs::chown(left.join("crash"), Some(ID), Some(ID)).unwrap();
        std::os::unix::fs::chown(foreign, Some(4242), Some(4242)).unwrap();
    }
    let out = Command::new(env!("CARGO_BIN_EXE_oci-coredump"))
        .args(["vacuum", "--keep", "9", "--store"])
        .arg(store.path())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let stays = (link.symlink_metadata().is_ok(), foreign.exists(), store.path().exists());
    assert!(!left.exists());
    assert_eq!(stays, (true, is_root(), true));
}

/// A debugger that a core has taken over: it makes directories as deep as it can, links to what is
/// not its own, and tries to have its directory removed by another name.
#[test]
fn what_a_debugger_leaves_is_removed_and_nothing_else() {
    if !require::programs(&["gcc", "python3"]) {
        return;
    }
    let crash = Crash::new();
    let precious = crash.path("precious");
    std::fs::create_dir_all(precious.join("kept")).unwrap();
    let evil = crash.path("evil");
    let script = format!(
        "#!/usr/bin/env python3\n\
         import os\n\
         here = os.path.dirname(os.getcwd())\n\
         print('AT<' + here + '>', flush=True)\n\
         try:\n    os.rename(here, '/var/tmp/renamed-' + str(os.getpid()))\n    print('RENAMED')\n\
         except OSError: pass\n\
         os.symlink({:?}, 'link')\n\
         os.mkdir('moved-1'); open('moved-1/x', 'w').close()\n\
         for i in range(5000):\n    os.mkdir('d'); os.chdir('d')\n    os.symlink({:?}, 'l')\n\
         os.chmod('.', 0)\n",
        precious.to_str().unwrap(),
        precious.to_str().unwrap()
    );
    std::fs::write(&evil, script).unwrap();
    std::fs::set_permissions(&evil, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(crash.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let out = succeed(&mut crash.command("debug", &["--debugger", evil.to_str().unwrap()]));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (at, _) = text.split_once("AT<").unwrap().1.split_once('>').unwrap();
    if is_root() {
        assert!(!text.contains("RENAMED"), "it has renamed its directory");
        assert!(at.starts_with("/var/tmp/oci-coredump-debug-") || at.starts_with("/tmp/"), "{at}");
        wait_for("removal", SOON, || !Path::new(at).exists());
    }
    assert!(precious.join("kept").exists());
}

/// The records of a store say where its cores are. Those of another user's store are not trusted,
/// and one's own only for what is below the store.
#[test]
fn a_store_leads_nowhere_else() {
    if !is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let victim = scratch.path().join("etc");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("shadow"), "secret").unwrap();
    let store = scratch.path().join("store");
    std::fs::create_dir_all(store.join("records")).unwrap();
    let record = serde_json::json!({
        "time": "2026-03-10T10:30:00Z", "container_id": "4f3c9a1b2d5e", "pid": 12, "host_pid": 4711,
        "tid": 12, "host_tid": 4711, "signal": 11, "signal_name": "SIGSEGV", "comm": "program",
        "exe": "/bin/program", "uid": 0, "gid": 0, "dump_mode": 1, "pattern": "/core",
        "core_path": "/shadow", "host_path": victim.join("shadow"), "host_dir": victim,
        "location": "store", "truncated": false, "outcome": "written", "size": 6, "disk_size": 4096,
        "reason": null
    });
    std::fs::write(store.join("records/1.jsonl"), format!("{record}\n")).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oci-coredump"));
        command.args(args).arg("--store").arg(&store).output().unwrap()
    };
    std::os::unix::fs::chown(&store, Some(4321), Some(4321)).unwrap();
    let verbs: [&[&str]; 6] = [
        &["list"],
        &["info"],
        &["export", "-o", "-"],
        &["debug", "--debugger", "/bin/true"],
        &["rm", "--yes", "12"],
        &["vacuum", "--keep", "0"],
    ];
    for verb in verbs {
        let out = run(verb);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains("user 4321"), "{verb:?}: {said}");
    }
    std::os::unix::fs::chown(&store, Some(0), Some(0)).unwrap();
    assert!(run(&["vacuum", "--keep", "0"]).status.success());
    assert!(victim.join("shadow").exists(), "vacuum has left its store");
}
