//! `--debuginfod` with Debian's server, and with one that does what it should not.

#[allow(dead_code)]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::hostile::{Act, Hostile};
use support::servers::debuginfod;
use support::{Fixture, helper, stderr, succeed};

const SOURCE: &str = "
__attribute__((noinline)) void innermost(volatile int *at) { *at = 1; }
__attribute__((noinline)) void middle(int *at) { innermost(at); __asm__ volatile(\"\"); }
int main(void) { middle(0); return 0; }
";

/// A stripped program that has died, its core, and what a server should have.
struct Crash {
    dir: tempfile::TempDir,
    program: PathBuf,
    core: PathBuf,
    id: String,
}

impl Crash {
    /// `name`: the build-id begins with it.
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let id: String = name.bytes().map(|b| format!("{b:02x}")).collect();
        let id = format!("{id:0<40.40}");
        for made in ["served", "store", "root", "empty"] {
            std::fs::create_dir(path(made)).unwrap();
        }
        std::fs::write(path("crash.c"), SOURCE).unwrap();
        let (whole, program) = (path("whole"), path("program"));
        succeed(
            Command::new("gcc")
                .args(["-g", "-O1", &format!("-Wl,--build-id=0x{id}")])
                .arg(path("crash.c"))
                .arg("-o")
                .arg(&whole),
        );
        succeed(
            Command::new("objcopy")
                .arg("--only-keep-debug")
                .arg(&whole)
                .arg(path("served/program.debug")),
        );
        succeed(Command::new("strip").arg("-o").arg(&program).arg(&whole));
        let core = path("core");
        succeed(
            Command::new("gdb")
                .args(["-nx", "-q", "-batch", "-iex", "set debuginfod enabled off", "-ex", "run"])
                .args(["-ex", &format!("generate-core-file {}", core.display())])
                .arg(&program),
        );
        let inside = path("root").join(program.strip_prefix("/").unwrap());
        std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
        std::fs::copy(&program, inside).unwrap();
        Crash { program, core, id, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A verb on the core. `root`: `root`, which has the program, or `empty`.
    fn verb(&self, verb: &str, root: &str, urls: &str) -> Command {
        let mut command = Command::new(helper());
        command
            .arg(verb)
            .arg("--core")
            .arg(&self.core)
            .arg("--store")
            .arg(self.path("store"))
            .arg("--sysroot")
            .arg(self.path(root))
            .env("DEBUGINFOD_URLS", urls)
            .env("XDG_CACHE_HOME", self.path("store"));
        command
    }

    fn info(&self, root: &str, urls: &str, arguments: &[&str]) -> Output {
        succeed(self.verb("info", root, urls).args(arguments))
    }

    /// The names of what is kept, wherever that is.
    fn kept(&self) -> Vec<String> {
        let places = ["store/debuginfod", "store/oci-coredump/debuginfod"];
        let all = places.iter().filter_map(|place| std::fs::read_dir(self.path(place)).ok());
        let mut all: Vec<String> =
            all.flatten().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    fn has_names(&self, out: &Output) -> bool {
        let text = String::from_utf8_lossy(&out.stdout);
        ["innermost at ", "middle at ", "main at "].iter().all(|name| text.contains(name))
            && text.contains("crash.c:2")
    }

    /// What was said of this program, not of the C library.
    fn said(&self, out: &Output) -> Vec<String> {
        let text = stderr(out);
        text.lines().filter(|line| line.contains(&self.id)).map(str::to_owned).collect()
    }
}

#[test]
fn debian_s_server() {
    let crash = Crash::new("debians-server");
    std::fs::copy(&crash.program, crash.path("served/program")).unwrap();
    let Some(server) = debuginfod(crash.path("served")) else { return };
    let url = format!("http://127.0.0.1:{}/", server.port);
    // Nobody is asked who was not to be.
    let out = crash.info("root", &url, &[]);
    assert!(!crash.has_names(&out) && crash.kept().is_empty());
    let begun = Instant::now();
    loop {
        // Until the server has looked through its files.
        let out = crash.info("empty", &url, &["--debuginfod"]);
        if crash.has_names(&out) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{}", stderr(&out));
        for absent in crash.kept().iter().filter(|name| name.starts_with(&crash.id)) {
            for place in ["store/debuginfod", "store/oci-coredump/debuginfod"] {
                let _ = std::fs::remove_file(crash.path(place).join(absent));
            }
        }
    }
    let own = |kept: Vec<String>| -> Vec<String> {
        kept.into_iter().filter(|name| name.starts_with(&crash.id)).collect()
    };
    let both = [".debuginfo", ".executable"].map(|kind| crash.id.clone() + kind);
    assert_eq!(own(crash.kept()), both);
    drop(server);
    // From what was kept.
    let out = crash.info("empty", &url, &["--debuginfod"]);
    assert!(crash.has_names(&out) && crash.said(&out).is_empty(), "{}", stderr(&out));
    assert!(String::from_utf8_lossy(&out.stdout).contains("fetched"));
    // It goes into the bundle, which needs no server.
    let bundle = crash.path("x.tar.zst");
    let mut export = crash.verb("export", "empty", &url);
    succeed(export.arg("--debuginfod").arg("-o").arg(&bundle));
    let listed = succeed(Command::new("tar").args(["--zstd", "-tf"]).arg(&bundle)).stdout;
    let debug = format!("debug/.build-id/{}/{}.debug", &crash.id[..2], &crash.id[2..]);
    assert!(String::from_utf8_lossy(&listed).contains(&debug));
    let bt = ["-A", "-batch", "-A", "-ex", "-A", "bt"];
    let gdb = succeed(Command::new(helper()).arg("debug").arg(&bundle).args(bt)).stdout;
    let gdb = String::from_utf8_lossy(&gdb);
    assert!(["innermost", "middle", "main"].iter().all(|name| gdb.contains(name)), "{gdb}");
    // It counts for the store, and goes first.
    let fixture = Fixture::new(0);
    let cache = [crash.path("store/debuginfod"), crash.path("store/oci-coredump/debuginfod")];
    let found = cache.iter().find(|path| path.exists()).unwrap();
    let to = fixture.path("store/debuginfod");
    if nix_root() {
        succeed(Command::new("cp").arg("-a").arg(found).arg(&to));
        let vacuum = |args: &[&str]| {
            let out = fixture.helper("vacuum", args).stdout;
            String::from_utf8(out).unwrap()
        };
        let told = vacuum(&["--max-size", "1", "--dry-run"]);
        assert!(told.contains("files that debuginfod servers gave ("), "{told}");
        let told = vacuum(&["--max-size", "1T"]);
        assert!(!told.contains("debuginfod"), "{told}");
        vacuum(&["--max-size", "1"]);
        let left = std::fs::read_dir(&to).unwrap().map(|e| e.unwrap().path());
        assert!(left.map(|path| path.metadata().unwrap().len()).all(|size| size == 0));
    }
}

fn nix_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The file of this build-id, for who asks for that.
fn file_of(crash: &Crash) -> Vec<u8> {
    std::fs::read(crash.path("served/program.debug")).unwrap()
}

#[test]
fn a_hostile_server_ends_in_one_line() {
    let other = std::fs::read("/bin/true").unwrap();
    let cases: [(&str, Act, &str); 14] = [
        ("other", Act::File(other), "is not used: it has the build-id "),
        ("text", Act::File(b"hello".into()), "is not used: it is no ELF file with a build-id"),
        ("nothing", Act::File(Vec::new()), "the answer is empty"),
        ("endless", Act::Endless, "it has more than 1048576 bytes, which are the most"),
        ("drip", Act::Drip, "less than 100 KiB came in 2 seconds"),
        ("silence", Act::Silence, "no answer in 2 seconds"),
        ("file", Act::Redirect("file:///etc/passwd"), "the server says 302"),
        ("ftp", Act::Redirect("ftp://127.0.0.1/x"), "it redirects to neither http nor https"),
        ("circle", Act::Circle, "too many redirects"),
        ("header", Act::Header, "debuginfo of "),
        (
            "announced",
            Act::Announced(1 << 40),
            "it has 1099511627776 bytes, and 1048576 are the most",
        ),
        ("breaks", Act::BreaksOff, "it breaks off"),
        ("noise", Act::Noise, "debuginfo of "),
        ("500", Act::Status(500), "the server says 500"),
    ];
    for (name, act, says) in cases {
        let crash = Crash::new(name);
        let id = crash.id.clone();
        let server = Hostile::new(move |_, path| match path.contains(&id) {
            true => act.clone(),
            false => Act::Status(404),
        });
        let mut info = crash.verb("info", "root", &server.url());
        let out = info
            .arg("--debuginfod")
            .env("DEBUGINFOD_TIMEOUT", "2")
            .env("DEBUGINFOD_MAXSIZE", (1 << 20).to_string())
            .env("DEBUGINFOD_RETRY_LIMIT", "1");
        let out = succeed(out);
        let said = crash.said(&out);
        assert!(said.len() == 1 && said[0].contains(says), "{name}: {}", stderr(&out));
        assert!(!crash.has_names(&out), "{name}");
        assert!(!stderr(&out).contains('\x1b') && said[0].len() < 400, "{name}: {said:?}");
        // Nothing is kept, not even that there is nothing.
        assert!(crash.kept().iter().all(|kept| !kept.starts_with(&crash.id)), "{name}");
    }
}

#[test]
fn what_no_server_has_is_not_asked_for_at_once_again() {
    let crash = Crash::new("absent");
    let server = Hostile::new(|_, _| Act::Status(404));
    let out = crash.info("root", &server.url(), &["--debuginfod"]);
    let said = crash.said(&out);
    assert!(said.len() == 1 && said[0].contains("no server has the debuginfo of "), "{said:?}");
    let asked = server.count();
    assert!(asked > 0);
    let said = crash.said(&crash.info("root", &server.url(), &["--debuginfod"]));
    assert!(said.len() == 1 && said[0].contains("a short time ago"), "{said:?}");
    assert_eq!(server.count(), asked);
}

#[test]
fn several_servers_and_a_second_try() {
    let crash = Crash::new("several");
    let (id, file) = (crash.id.clone(), file_of(&crash));
    let tries = AtomicUsize::new(0);
    let server = Hostile::new(move |_, path| match path.contains(&id) {
        true if tries.fetch_add(1, Ordering::SeqCst) == 0 => Act::Status(500),
        true => Act::File(file.clone()),
        false => Act::Status(404),
    });
    let nobody = support::servers::free_port();
    let urls = format!("ima:enforcing http://127.0.0.1:{nobody}/ {} file:///srv", server.url());
    let out = crash.info("root", &urls, &["--debuginfod"]);
    assert!(crash.has_names(&out), "{}", stderr(&out));
    let text = stderr(&out);
    assert!(text.contains("ima:enforcing is ignored"), "{text}");
    assert!(text.contains("file:///srv is left out: expected http:// or https://"), "{text}");
    // The one that nobody listens at is asked once, not for each file.
    let refused = |line: &&str| line.contains(&format!(":{nobody}"));
    assert_eq!(text.lines().filter(refused).count(), 1, "{text}");
    let without = crash.info("root", "", &["--debuginfod"]);
    assert!(stderr(&without).contains("there is no server to ask: set DEBUGINFOD_URLS"));
}

/// As a user other than root, with a cache of his own.
#[test]
fn a_plain_user() {
    if !nix_root() {
        return;
    }
    let crash = Crash::new("user");
    let (id, file) = (crash.id.clone(), file_of(&crash));
    let server = Hostile::new(move |_, path| match path.contains(&id) {
        true => Act::File(file.clone()),
        false => Act::Status(404),
    });
    // Where the user can read it: a build may be in root's home.
    let open = |path: &Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let programs = tempfile::tempdir_in("/var/tmp").unwrap();
    open(programs.path(), 0o755);
    for name in ["oci-coredump", "oci-coredump-ship"] {
        let to = programs.path().join(name);
        std::fs::copy(helper().with_file_name(name), &to).unwrap();
        open(&to, 0o755);
    }
    let cache = tempfile::tempdir_in("/var/tmp").unwrap();
    std::os::unix::fs::chown(cache.path(), Some(65534), Some(65534)).unwrap();
    let core = programs.path().join("core");
    std::fs::copy(&crash.core, &core).unwrap();
    open(&core, 0o644);
    let root = programs.path().join("root");
    succeed(Command::new("cp").arg("-a").arg(crash.path("root")).arg(&root));
    succeed(Command::new("chmod").args(["-R", "a+rX"]).arg(&root));
    let out = succeed(
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(programs.path().join("oci-coredump"))
            .args(["info", "--debuginfod", "--core"])
            .arg(&core)
            .arg("--sysroot")
            .arg(&root)
            .env("DEBUGINFOD_URLS", server.url())
            .env("HOME", "/nonexistent")
            .env("XDG_CACHE_HOME", cache.path()),
    );
    assert!(crash.has_names(&out), "{}{}", stderr(&out), String::from_utf8_lossy(&out.stdout));
    let kept = cache.path().join(format!("oci-coredump/debuginfod/{}.debuginfo", crash.id));
    use std::os::unix::fs::MetadataExt;
    let meta = kept.metadata().unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (65534, 0o600));
}
