use super::*;
use proptest::prelude::*;

fn crash() -> Specifiers {
    Specifiers {
        pid: 12,
        host_pid: 4012,
        tid: 13,
        host_tid: 4013,
        uid: 100_000,
        gid: u32::MAX,
        dump_mode: 1,
        signal: 11,
        time: 1_700_000_000,
        limit: u64::MAX,
        cpu: Some(1),
        pidfd: Some(3),
        hostname: b"web-1".to_vec(),
        comm: b"a!b %p".to_vec(),
        exe_name: b"nginx (deleted)".to_vec(),
        exe_path: b"!usr!sbin!nginx (deleted)".to_vec(),
    }
}

fn expand(template: &str, append_pid: bool) -> String {
    String::from_utf8(Template::parse(template.as_bytes()).expand(&crash(), append_pid)).unwrap()
}

#[test]
fn escaped_as_the_kernel_does() {
    for (value, is) in [
        ("", "!"),
        (".", "!"),
        ("..", "!."),
        ("...", "..."),
        ("/", "!"),
        ("/usr/bin/a", "!usr!bin!a"),
        ("a..", "a.."),
    ] {
        assert_eq!(escaped(value.as_bytes()), is.as_bytes(), "{value:?}");
    }
}

#[test]
fn sysctls_that_name_the_core() {
    let seen = |template: &str, append, suffix| {
        let (pattern, uses_pid) = Template::parse(template.as_bytes()).as_sysctls(append, suffix);
        // Who computes the name by them gets what is done.
        let named = Template::parse(pattern.as_bytes()).expand(&crash(), uses_pid);
        let done = Template::parse(template.as_bytes()).expand(&crash(), append);
        assert_eq!(named, [&done, suffix.as_bytes()].concat());
        (pattern, uses_pid)
    };
    assert_eq!(seen("/d/core", true, ""), ("/d/core".into(), true));
    assert_eq!(seen("/d/core", false, ""), ("/d/core".into(), false));
    assert_eq!(seen("/d/core.%p", true, ""), ("/d/core.%p".into(), true));
    assert_eq!(seen("/d/core", true, ".zst"), ("/d/core.%p.zst".into(), false));
    assert_eq!(seen("/d/%p", true, ".zst"), ("/d/%p.zst".into(), true));
    assert_eq!(seen("/d/100%%", false, ".zst"), ("/d/100%%.zst".into(), false));
}

#[test]
fn expansion_follows_core_5() {
    let table = [
        ("core", true, "core.12"),
        ("core", false, "core"),
        ("/d/core-%p", true, "/d/core-12"),
        ("/d/core-%P", true, "/d/core-4012.12"),
        ("%i %I", false, "13 4013"),
        ("%u:%g:%d:%s:%t", false, "100000:4294967295:1:11:1700000000"),
        ("%c %C", false, "18446744073709551615 1"),
        ("%h.%e.%f.%E", false, "web-1.a!b %p.nginx (deleted).!usr!sbin!nginx (deleted)"),
        ("100%%", false, "100%"),
        ("%%p", true, "%p.12"),
        ("end%", false, "end"),
        ("end%", true, "end.12"),
        ("a%zb", false, "ab"),
        ("a%F", false, "a"),
        ("%", true, ".12"),
        ("", false, ""),
    ];
    for (template, append, expected) in table {
        assert_eq!(expand(template, append), expected, "{template:?} core_uses_pid={append}");
    }
}

#[test]
fn a_container_may_ask_for_a_file_only() {
    let long = "x".repeat(128);
    let table: [(&[u8], Result<(), Refusal>); 18] = [
        (b"/pod/data/dump/core-eci", Ok(())),
        (b"core", Ok(())),
        (&b"x".repeat(127), Ok(())),
        (b"a..b/c", Ok(())),
        (b"", Err(Refusal::Empty)),
        (b"|/bin/sh", Err(Refusal::Pipe)),
        (b"@/run/s", Err(Refusal::Socket)),
        (long.as_bytes(), Err(Refusal::TooLong(128))),
        (b"a\0b", Err(Refusal::Control(0))),
        (b"core\n", Err(Refusal::Control(b'\n'))),
        (b"/a/../core", Err(Refusal::Parent)),
        (b"/a/.%z./core", Err(Refusal::Parent)),
        // With core_uses_pid these would name a hidden file: `/cores/.12`.
        (b"/cores/", Err(Refusal::Directory)),
        (b"/cores/.", Err(Refusal::Directory)),
        (b"cores/", Err(Refusal::Directory)),
        (b"/cores/%z", Err(Refusal::Directory)),
        (b"/cores/%", Err(Refusal::Directory)),
        (b"/cores/.%p", Ok(())),
    ];
    for (text, expected) in table {
        assert_eq!(
            std::str::from_utf8(text).unwrap().parse::<Pattern>().map(|_| ()),
            expected,
            "{:?}",
            text.escape_ascii().to_string()
        );
    }
    assert_eq!("..".parse::<Pattern>().unwrap_err(), Refusal::Parent);
}

#[test]
fn directory_is_the_literal_prefix() {
    let dir = |t: &str| Template::parse(t.as_bytes()).directory();
    assert_eq!(dir("/pod/data/dump/core-eci").as_deref(), Some("/pod/data/dump"));
    assert_eq!(dir("/cores/%e/core").as_deref(), Some("/cores"));
    assert_eq!(dir("/cores/a%e/core").as_deref(), Some("/cores"));
    assert_eq!(dir("//a/./b//core").as_deref(), Some("/a/b"));
    assert_eq!(dir("/core").as_deref(), Some("/"));
    assert_eq!(dir("core"), None);
    assert_eq!(dir("pod/data/core"), None);
}

#[test]
fn what_a_specifier_names_lies_below_the_fixed_directory() {
    for (text, fixed) in [
        ("/cores/%e/core", Some("/cores/")),
        ("/cores/a%e/b/core", Some("/cores/")),
        ("/%h/core", Some("/")),
        ("/cores/core.%e", None),
        ("/cores/core", None),
        ("%e/core", None),
    ] {
        let template = Template::parse(text.as_bytes());
        let path = template.expand(&crash(), true);
        let got = template.fixed_directory().map(|n| path[..n].to_vec());
        assert_eq!(got, fixed.map(|f| f.as_bytes().to_vec()), "{text}");
    }
}

#[test]
fn handlers_of_the_host() {
    assert_eq!(Handler::of(b""), Handler::Nothing);
    assert_eq!(Handler::of(b"@/run/x.sock"), Handler::Socket);
    assert_eq!(Handler::of(b"core.%p"), Handler::File(Template::parse(b"core.%p")));
    let Handler::Pipe(args) = Handler::of(b"|/usr/lib/helper  %P \t%e\n%F") else {
        panic!("not a pipe")
    };
    let args: Vec<_> =
        args.iter().map(|a| String::from_utf8(a.expand_argument(&crash())).unwrap()).collect();
    assert_eq!(args, ["/usr/lib/helper", "4012", "a!b %p", "3"]);
}

/// The kernel's loop, written again as literally as Rust allows, for comparison.
fn kernel(pattern: &[u8], s: &Specifiers, uses_pid: bool) -> Vec<u8> {
    let (mut out, mut i, mut pid_in_pattern) = (Vec::new(), 0, false);
    while i < pattern.len() {
        if pattern[i] != b'%' {
            out.push(pattern[i]);
        } else {
            i += 1;
            match pattern.get(i) {
                None => break,
                Some(b'%') => out.push(b'%'),
                Some(c) => {
                    pid_in_pattern |= *c == b'p';
                    // %F is known only where the pattern is a pipe.
                    if *c != b'F' {
                        s.append(*c, &mut out);
                    }
                }
            }
        }
        i += 1;
    }
    if uses_pid && !pid_in_pattern {
        out.extend(format!(".{}", s.pid).bytes());
    }
    out
}

proptest! {
    #[test]
    fn expands_as_the_kernel_does(pattern in "[%a-zA-Z/. ]{0,127}", uses_pid: bool) {
        let ours = Template::parse(pattern.as_bytes()).expand(&crash(), uses_pid);
        prop_assert_eq!(ours, kernel(pattern.as_bytes(), &crash(), uses_pid));
    }

    #[test]
    fn no_accepted_pattern_starts_a_program_or_leaves_its_root(
        text in proptest::collection::vec(any::<u8>(), 0..140)
    ) {
        // Mostly bytes that matter to the rules.
        let likely = |b: u8| b"%/.pze|@"[usize::from(b / 3 % 8)];
        let text: Vec<u8> =
            text.iter().map(|b| if b % 3 == 0 { likely(*b) } else { *b }).collect();
        let text = String::from_utf8_lossy(&text);
        if let Ok(pattern) = text.parse::<Pattern>() {
            let text = text.as_bytes();
            prop_assert!(text.len() <= MAX_LEN && !matches!(text[0], b'|' | b'@'));
            prop_assert!(!text.iter().any(|b| *b < b' '));
            let name = pattern.expand(&crash(), true);
            prop_assert!(!name.split(|b| *b == b'/').any(|c| c == b".."));
        }
    }
}
