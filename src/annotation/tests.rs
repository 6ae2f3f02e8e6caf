use super::*;
use proptest::prelude::*;

fn of(list: &[(&str, &str)]) -> Annotations {
    list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn pattern(list: &[(&str, &str)]) -> Option<String> {
    wishes(&of(list), Some("app"), None).unwrap().map(|w| w.pattern.to_string())
}

#[test]
fn every_dialect() {
    for key in [
        "oci-coredump/pattern",
        "k8s.aliyun.com/eci-core-pattern",
        "alibabacloud.com/core-pattern",
        "bci.virtual-kubelet.io/core-pattern",
        "starlingx.io/core_pattern",
    ] {
        assert_eq!(pattern(&[(key, "/d/core")]).as_deref(), Some("/d/core"), "{key}");
    }
    assert_eq!(
        pattern(&[("system.cci.io/coredump", r#"{"core_pattern": "/d/%e"}"#)]).as_deref(),
        Some("/d/%e")
    );
    assert_eq!(
        pattern(&[("app.oci-coredump/pattern", "/mine"), ("oci-coredump/pattern", "/all")])
            .as_deref(),
        Some("/mine")
    );
    assert_eq!(pattern(&[("other.oci-coredump/pattern", "/mine")]), None);
    assert_eq!(pattern(&[("oci-coredump/limit", "1M"), ("org.example/x", "y")]), None);
}

#[test]
fn the_first_wins_and_the_quarrel_is_told() {
    let w = wishes(
        &of(&[("alibabacloud.com/core-pattern", "/b"), ("k8s.aliyun.com/eci-core-pattern", "/a")]),
        None,
        Some(&"/default".parse().unwrap()),
    )
    .unwrap()
    .unwrap();
    assert_eq!(
        (w.pattern.to_string().as_str(), w.key.as_str()),
        ("/a", "k8s.aliyun.com/eci-core-pattern")
    );
    assert_eq!(w.notes.len(), 1);
    let w = wishes(
        &of(&[("alibabacloud.com/core-pattern", "/a"), ("k8s.aliyun.com/eci-core-pattern", "/a")]),
        None,
        None,
    )
    .unwrap()
    .unwrap();
    assert!(w.notes.is_empty());
}

#[test]
fn the_default_is_for_those_who_ask_for_nothing() {
    let w = wishes(&of(&[]), None, Some(&"core".parse().unwrap())).unwrap().unwrap();
    assert_eq!((w.key.as_str(), w.pattern.to_string().as_str()), ("default_pattern", "core"));
    assert_eq!(wishes(&of(&[]), None, None).unwrap(), None);
}

#[test]
fn limits() {
    let limit = |list: &[(&str, &str)]| wishes(&of(list), None, None).unwrap().unwrap().limit;
    let own = |v| limit(&[("oci-coredump/pattern", "c"), ("oci-coredump/limit", v)]);
    assert_eq!(own("0"), Some(Limit::Finite(0)));
    assert_eq!(own("unlimited"), Some(Limit::Unlimited));
    assert_eq!(own("512Mi"), Some(Limit::Finite(512 << 20)));
    assert_eq!(own("200K"), Some(Limit::Finite(200 << 10)));
    assert_eq!(own("20m"), Some(Limit::Finite(20 << 20)));
    assert_eq!(own("2GiB"), Some(Limit::Finite(2 << 30)));
    assert_eq!(own("7b"), Some(Limit::Finite(7)));
    assert_eq!(limit(&[("oci-coredump/pattern", "c")]), None);
    assert_eq!(
        limit(&[("system.cci.io/coredump", r#"{"core_pattern":"c","max_size":5}"#)]),
        Some(Limit::Finite(5 << 20))
    );
    assert_eq!(
        limit(&[("system.cci.io/coredump", r#"{"core_pattern":"c"}"#)]),
        Some(Limit::Finite(1 << 30))
    );
    assert_eq!(
        limit(&[("starlingx.io/core_pattern", "c"), ("starlingx.io/core_max_size", "200K")]),
        Some(Limit::Finite(200 << 10))
    );
    assert_eq!(
        limit(&[("oci-coredump/pattern", "c"), ("starlingx.io/core_max_size", "200K")]),
        None
    );
}

/// "0 to disable", and percentages of the disk; docs.starlingx.io, "Kubernetes Pod Core Dump
/// Handler".
#[test]
fn starlingx_sizes() {
    let of = |key: &str, value: &str| {
        let list = [("starlingx.io/core_pattern", "c"), (key, value)];
        wishes(&of(&list), None, None).unwrap().unwrap()
    };
    let free = |bytes, percent| Some(Free { bytes, percent });
    for (value, limit) in [
        ("0", Limit::Unlimited),
        ("0%", Limit::Unlimited),
        ("0B", Limit::Unlimited),
        ("100B", Limit::Finite(100)),
        ("200k", Limit::Finite(200 << 10)),
        ("2G", Limit::Finite(2 << 30)),
    ] {
        let w = of("starlingx.io/core_max_size", value);
        assert_eq!((w.limit.unwrap_or_default(), w.notes.len()), (limit, 0), "{value}");
        assert_eq!(w.share.room(1000, 1000), None, "{value}");
    }
    let w = of("starlingx.io/core_max_size", "50%");
    assert_eq!((w.limit, w.share.max_size), (None, free(None, Some(50))));
    assert_eq!(of("starlingx.io/core_max_used", "50%").share.max_used, free(None, Some(50)));
    assert_eq!(of("starlingx.io/core_min_free", "1G").share.min_free, free(Some(1 << 30), None));
    assert_eq!(of("starlingx.io/core_compression", "none").notes, [""; 0]);
    for (key, value) in [
        ("starlingx.io/core_max_size", "lots"),
        ("starlingx.io/core_max_used", "200%"),
        ("starlingx.io/core_compression", "lz4"),
    ] {
        let w = of(key, value);
        assert_eq!((w.limit, w.share, w.notes.len()), (None, DiskShare::default(), 1), "{key}");
        assert!(w.notes[0].contains(key) && w.notes[0].contains(value), "{}", w.notes[0]);
    }
}

/// Its handler takes the letters of specifiers in either case.
#[test]
fn starlingx_specifiers() {
    let of = |text: &str| {
        let list = [("starlingx.io/core_pattern", text)];
        wishes(&of(&list), None, None).unwrap().unwrap().pattern.to_string()
    };
    assert_eq!(of("/D/core.%P.%U.%G.%S.%T.%E.%H"), "/D/core.%P.%u.%g.%s.%t.%E.%h");
    assert_eq!(of("/d/100%%U.%p"), "/d/100%%U.%p");
    assert_eq!(pattern(&[("oci-coredump/pattern", "/d/%U%e")]).as_deref(), Some("/d/%U%e"));
}

#[test]
fn what_happens_at_an_existing_name() {
    let of = |value| {
        let list = [("oci-coredump/pattern", "c"), ("oci-coredump/existing", value)];
        wishes(&of(&list), None, None).unwrap().unwrap().existing
    };
    assert_eq!(
        ["replace", "keep", "number"].map(of),
        [Existing::Replace, Existing::Keep, Existing::Number].map(Some)
    );
    let default = "c".parse().unwrap();
    let unsaid = wishes(&self::of(&[]), None, Some(&default)).unwrap().unwrap();
    assert_eq!(unsaid.existing, None);
}

#[test]
fn how_it_is_written() {
    let of =
        |k, v| wishes(&of(&[("oci-coredump/pattern", "c"), (k, v)]), None, None).unwrap().unwrap();
    assert!(
        of("oci-coredump/compress", "zstd").compress
            && !of("oci-coredump/compress", "none").compress
    );
    assert!(
        of("oci-coredump/release", "early").early_release
            && !of("oci-coredump/release", "complete").early_release
    );
}

/// What leaves the node is never guessed; a wrong word costs no cores.
#[test]
fn a_container_keeps_its_crashes_to_itself() {
    let upload = |list: &[(&str, &str)], container| {
        let all = [&[("oci-coredump/pattern", "c")], list].concat();
        wishes(&of(&all), container, None).unwrap().unwrap()
    };
    let key = "oci-coredump/upload";
    assert!(upload(&[], None).upload && upload(&[(key, "true")], None).upload);
    assert!(!upload(&[(key, "false")], None).upload);
    let odd = upload(&[(key, "False")], None);
    assert!(!odd.upload && odd.notes[0].contains("taking it for false"), "{:?}", odd.notes);
    let one = [(key, "false"), ("web.oci-coredump/upload", "true")];
    assert!(upload(&one, Some("web")).upload && !upload(&one, Some("db")).upload);
}

#[test]
fn refusals_name_the_key_the_value_and_the_rule() {
    let table = [
        (
            vec![("k8s.aliyun.com/eci-core-pattern", "|sh")],
            ["k8s.aliyun.com/eci-core-pattern", "|sh", "program"],
        ),
        (
            vec![("oci-coredump/pattern", "c"), ("oci-coredump/limit", "lots")],
            ["oci-coredump/limit", "lots", "512Mi"],
        ),
        (
            vec![("oci-coredump/pattern", "c"), ("oci-coredump/limit", "9999999999T")],
            ["oci-coredump/limit", "9999999999T", "64 bits"],
        ),
        (
            vec![("oci-coredump/pattern", "c"), ("oci-coredump/limit", "i")],
            ["oci-coredump/limit", "\"i\"", "512Mi"],
        ),
        (
            vec![("oci-coredump/pattern", "c"), ("oci-coredump/filter", "0x1000")],
            ["oci-coredump/filter", "0x1000", "core(5)"],
        ),
        (
            vec![("oci-coredump/pattern", "c"), ("oci-coredump/compress", "xz")],
            ["oci-coredump/compress", "xz", "none or zstd"],
        ),
        (
            vec![("oci-coredump/pattern", "c"), ("oci-coredump/release", "now")],
            ["oci-coredump/release", "now", "complete or early"],
        ),
        (
            vec![("oci-coredump/pattern", "c"), ("oci-coredump/existing", "rename")],
            ["oci-coredump/existing", "rename", "replace, keep or number"],
        ),
        (
            vec![("oci-coredump/pattern", "c"), ("oci-coredump/limits", "cores=many")],
            ["oci-coredump/limits", "cores=many", "whole number"],
        ),
        (
            vec![("oci-coredump/pattern", "c"), ("oci-coredump/required", "yes")],
            ["oci-coredump/required", "yes", "true or false"],
        ),
        (vec![("system.cci.io/coredump", "/plain")], ["system.cci.io/coredump", "/plain", "JSON"]),
    ];
    for (list, parts) in table {
        // A setting beside the pattern costs no cores, unless all is required.
        let beside = list.len() > 1 && list[1].0 != "oci-coredump/required";
        let says = |text: &str| {
            assert!(parts.iter().all(|p| text.contains(p)), "{list:?}: {text}");
        };
        if beside {
            let w = wishes(&of(&list), None, None).unwrap().unwrap();
            assert_eq!((w.pattern.to_string().as_str(), w.notes.len()), ("c", 1), "{list:?}");
            says(&w.notes[0]);
            assert_eq!(
                Wishes { notes: vec![], ..w },
                wishes(&of(&list[..1]), None, None).unwrap().unwrap(),
                "not the default"
            );
        }
        let strict = [&list[..], &[("oci-coredump/required", "true")]].concat();
        let list = if beside { &strict } else { &list };
        says(&format!("{:#}", wishes(&of(list), None, None).unwrap_err()));
    }
    assert!(required(&of(&[("oci-coredump/required", "yes")]), None));
    assert!(required(&of(&[("c.oci-coredump/required", "true")]), Some("c")));
    assert!(!required(&of(&[("oci-coredump/required", "false")]), None));
    assert!(!required(&of(&[]), None));
}

proptest! {
    #[test]
    fn any_text_is_an_answer(key in 0..PATTERN_KEYS.len(), value in ".{0,140}", limit in ".{0,12}",
    filter in ".{0,8}") {
        let list = of(&[(PATTERN_KEYS[key], &value), ("oci-coredump/limit", &limit),
        ("oci-coredump/filter", &filter)]);
        if let Ok(Some(w)) = wishes(&list, None, None) {
            prop_assert!(w.pattern.to_string().parse::<Pattern>().is_ok());
            prop_assert!(w.filter.is_none_or(|f| f <= 0x1ff));
        }
    }
}

#[test]
fn whose_keys_and_which_containers() {
    for key in [
        "oci-coredump/pattern",
        "app.oci-coredump/limit",
        "k8s.aliyun.com/eci-core-pattern",
        "starlingx.io/core_max_used",
    ] {
        assert!(is_own(key), "{key}");
    }
    for key in ["oci-coredump", "xoci-coredump/pattern", "k8s.aliyun.com/eci", ""] {
        assert!(!is_own(key), "{key}");
    }
    assert!(PATTERN_KEYS.iter().all(|key| is_own(key)));
    assert!(is_sandbox(&of(&[("io.kubernetes.cri-o.ContainerType", "sandbox")])));
    assert!(!is_sandbox(&of(&[("io.kubernetes.cri.container-type", "container")])));
}

/// A key that is not in the list would be called unknown.
#[test]
fn every_key_of_ours_is_a_known_setting() {
    let keys =
        [PATTERN, LIMIT, FILTER, COMPRESS, RELEASE, EXISTING, KEEP, UPLOAD, LIMITS, REQUIRED];
    let settings = keys.map(|key| key.strip_prefix("oci-coredump/").unwrap());
    assert_eq!(settings, own_keys::SETTINGS);
}
