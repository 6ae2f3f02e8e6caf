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

#[test]
fn how_it_is_written() {
    let of =
        |k, v| wishes(&of(&[("oci-coredump/pattern", "c"), (k, v)]), None, None).unwrap().unwrap();
    assert!(
        of("oci-coredump/compress", "zstd").compress
            && !of("oci-coredump/compress", "none").compress
    );
    assert!(
        of("oci-coredump/release", "early").early && !of("oci-coredump/release", "complete").early
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
            vec![("oci-coredump/pattern", "c"), ("oci-coredump/required", "yes")],
            ["oci-coredump/required", "yes", "true or false"],
        ),
        (vec![("system.cci.io/coredump", "/plain")], ["system.cci.io/coredump", "/plain", "JSON"]),
    ];
    for (list, parts) in table {
        let e = format!("{:#}", wishes(&of(&list), None, None).unwrap_err());
        assert!(parts.iter().all(|p| e.contains(p)), "{list:?}: {e}");
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
