//! `info --full` on programs of C, C++, Rust and Go: arguments and local variables of the crashing
//! thread have the values that gdb shows for the same core.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::require;
use support::stacks;
use support::stacks::{FUNCTIONS, HANDLES, build, build_go, dump, frames, gdb, succeed};

/// A variable: the index of its frame, its name, its value in words.
#[derive(Clone, Debug)]
struct Variable {
    frame: usize,
    name: String,
    value: String,
}

/// Makes gdb print the variables of each frame; pretty printers are off.
const SCRIPT: &str = r#"
def shown(value):
    return value.format_string(raw=True, max_elements=32, repeat_threshold=0, max_depth=4,
                               static_members=False)
frame, index = gdb.newest_frame(), 0
while frame and index < 24:
    frame.select()
    if frame.type() in (gdb.NORMAL_FRAME, gdb.INLINE_FRAME):
        try: block = frame.block()
        except RuntimeError: block = None
        while block:
            for symbol in block:
                if symbol.is_argument or symbol.is_variable:
                    try: value = shown(symbol.value(frame))
                    except gdb.error as e: value = '<error: %s>' % e
                    value = value.replace('\n', ' ')
                    print('VARIABLE\t%d\t%s\t%s' % (index, symbol.name, value))
            if block.function: break
            block = block.superblock
    index += len(functions(frame))
    frame = frame.older()
"#;

/// A program that has died.
struct Crash {
    dir: tempfile::TempDir,
    program: PathBuf,
    core: PathBuf,
}

impl Crash {
    fn of(dir: tempfile::TempDir, program: PathBuf, commands: &[&str]) -> Self {
        let core = dump(dir.path(), &program, &[], commands);
        Crash { dir, program, core }
    }

    fn compiled(command: &[&str], source: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = build(dir.path(), "values", command, source);
        Crash::of(dir, program, &[])
    }

    fn info(&self, arguments: &[&str]) -> String {
        stacks::info(&self.core, Path::new("/"), arguments)
    }

    fn told(&self, arguments: &[&str]) -> Vec<Variable> {
        let most = if arguments.contains(&"--frames") { &[][..] } else { &["--frames", "24"] };
        let arguments = [&["--full"], most, arguments].concat();
        let told = stacks::told(&self.core, Path::new("/"), &arguments);
        let mut all = Vec::new();
        for (frame, f) in frames(&told).iter().enumerate() {
            for v in f["variables"].as_array().into_iter().flatten() {
                let text = |key: &str| v[key].as_str().unwrap().to_owned();
                all.push(Variable { frame, name: text("name"), value: text("value") });
            }
        }
        all
    }

    fn gdbs(&self) -> Vec<Variable> {
        let script = self.dir.path().join("variables.py");
        std::fs::write(&script, [FUNCTIONS, SCRIPT].concat()).unwrap();
        let past = ["-ex", "set backtrace past-main on"];
        let out =
            succeed(gdb().args(past).arg("-x").arg(&script).arg(&self.program).arg(&self.core));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let parse = |line: &str| {
            let mut words = line.strip_prefix("VARIABLE\t")?.splitn(3, '\t');
            let frame = words.next()?.parse().ok()?;
            let (name, value) = (words.next()?.to_owned(), words.next()?.to_owned());
            Some(Variable { frame, name, value })
        };
        text.lines().filter_map(parse).collect()
    }
}

/// Whether two values are the same, in the words of each side. `None` if gdb writes the type in
/// another way: the standard library's types, of which it shows how they are made.
fn is_same(ours: &str, gdbs: &str) -> Option<bool> {
    let is_missing = |text: &str| {
        text == "<optimized out>" || text.contains("<optimized out>") && !text.contains(['0', '1'])
    };
    if ours == gdbs || is_missing(ours) && is_missing(gdbs) {
        return Some(true);
    }
    // A function: gdb adds the types of its arguments.
    if let (Some((a, _)), Some((b, _))) = (ours.split_once(" <"), gdbs.split_once(" <")) {
        return Some(a == b);
    }
    // A reference: gdb stops there.
    if let Some((address, _)) = ours.split_once(": ").filter(|_| ours.starts_with('@')) {
        return Some(address == gdbs.split(':').next().unwrap());
    }
    // A character that gdb cannot write in the C locale: `223 'ß'`, `223 '\xdf'`.
    if let (Some((a, _)), Some((b, _))) = (ours.split_once(" '"), gdbs.split_once(" '\\")) {
        return Some(a == b);
    }
    if let (Ok(a), Ok(b)) = (ours.parse::<f64>(), gdbs.parse::<f64>()) {
        return Some(a == b || a.is_nan() && b.is_nan());
    }
    // `(int *) 0x0`, `shop::Kind::Root`, `Kind::Root`; `97 'a'` of Go and Rust is `97`.
    let gdbs =
        if gdbs.starts_with("(") { gdbs.split_once(") ").map_or(gdbs, |(_, v)| v) } else { gdbs };
    let last = |text: &str| text.rsplit("::").next().unwrap().to_owned();
    // An array of small numbers, which gdb writes as text for Go.
    if ours.starts_with('{') && gdbs.starts_with('"') {
        return None;
    }
    if gdbs.contains(['{', '[', '(']) || gdbs.starts_with('<') && gdbs != "<optimized out>" {
        return None;
    }
    Some(last(ours) == last(gdbs))
}

/// Variables of which gdb 13 says something else, with what must be said. Frame 1 is inlined into
/// frame 2, and gdb looks for its caller's values in the wrong place: `s` is what `shape` is. gdb
/// makes up frames for jumps to a function, to find what was passed to it. Go's compiler does not
/// say whether a register still has what was passed in it; gdb shows what is in it now.
const OTHERWISE: [(&str, usize, &str, Expected); 3] = [
    ("C, split DWARF", 1, "s", Expected::ValueOf(2, "shape")),
    ("Rust", 0, "no_tid", Expected::OptimizedOut),
    ("Go", 7, "p", Expected::OptimizedOut),
];

/// What must be said of a variable.
#[derive(Clone, Copy)]
enum Expected {
    ValueOf(usize, &'static str),
    OptimizedOut,
}

/// Whether the value of such a variable is the expected one. `None`: gdb's is.
fn otherwise(name: &str, ours: &[Variable], variable: &Variable, value: &str) -> Option<bool> {
    let is = |row: &&(&str, usize, &str, Expected)| {
        (row.0, row.1, row.2) == (name, variable.frame, variable.name.as_str())
    };
    Some(match OTHERWISE.iter().find(is)?.3 {
        Expected::OptimizedOut => value == "<optimized out>",
        Expected::ValueOf(frame, same) => {
            ours.iter().any(|v| v.frame == frame && v.name == same && v.value == value)
        }
    })
}

/// Compares what both have; every variable of gdb's must be there.
fn compare(name: &str, crash: &Crash, wrong: &mut Vec<String>) -> (usize, usize) {
    let (ours, gdbs) = (crash.told(&[]), crash.gdbs());
    let mut left: BTreeMap<(usize, &str), Vec<&str>> = BTreeMap::new();
    for v in &ours {
        left.entry((v.frame, &v.name)).or_default().push(&v.value);
    }
    let (mut same, mut more) = (0, 0);
    for theirs in &gdbs {
        let Some(values) = left.get_mut(&(theirs.frame, theirs.name.as_str())) else {
            // What is nowhere may be left out.
            if theirs.value != "<optimized out>" {
                wrong.push(format!("{name}: {theirs:?} is not there"));
            }
            continue;
        };
        let value = if values.len() > 1 { values.remove(0) } else { values[0] };
        if value.contains("<hidden>") {
            continue;
        }
        let same_as_expected = otherwise(name, &ours, theirs, value);
        match same_as_expected.or_else(|| is_same(value, &theirs.value)) {
            Some(true) => same += 1,
            // gdb knows fewer.
            Some(false) if theirs.value == "<optimized out>" => more += 1,
            Some(false) => wrong.push(format!("{name}: ours {value:?}, gdb's {theirs:?}")),
            None => {}
        }
    }
    (same, more)
}

#[test]
fn values_are_gdb_s() {
    let mut wrong = Vec::new();
    for (name, command, source, least) in [
        ("C -O0", &["gcc", "-g", "-O0"][..], "values.c", 26),
        ("C -O2", &["gcc", "-g", "-O2"], "values.c", 16),
        ("C -O0, DWARF 4", &["gcc", "-gdwarf-4", "-O0"], "values.c", 26),
        ("C -O2, DWARF 4", &["gcc", "-gdwarf-4", "-O2"], "values.c", 16),
        ("C, split DWARF", &["gcc", "-g", "-gsplit-dwarf", "-O1"], "values.c", 16),
        ("C, types apart", &["gcc", "-g", "-fdebug-types-section", "-O0"], "values.c", 26),
        ("C, types apart, DWARF 4", &["gcc", "-gdwarf-4", "-fdebug-types-section"], "values.c", 26),
        ("C++ -O0", &["g++", "-g", "-O0"], "values.cpp", 8),
        ("C++ -O2", &["g++", "-g", "-O2"], "values.cpp", 6),
        ("C++ -O2, DWARF 4", &["g++", "-gdwarf-4", "-O2"], "values.cpp", 6),
        ("Rust", &["rustc", "-g"], "values.rs", 6),
        // Not with -O: gdb 13 ends in an internal error on what rustc says of it then.
    ] {
        if !require::programs(&["gdb", command[0]]) {
            continue;
        }
        let crash = Crash::compiled(command, source);
        let (same, more) = compare(name, &crash, &mut wrong);
        println!("{name}: {same} as gdb's, {more} that gdb does not know");
        if same < least {
            let ours = crash.told(&[]);
            wrong.push(format!("{name}: only {same} are as gdb's: {ours:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn go(options: &[&str]) -> Crash {
    let dir = tempfile::tempdir().unwrap();
    let program = build_go(Path::new("go"), dir.path(), "values", options, "values.go");
    Crash::of(dir, program, HANDLES)
}

/// Every pair of a name and a value is there.
fn has(name: &str, crash: &Crash, expected: &[(&str, &str)]) {
    let all = crash.told(&[]);
    for (variable, value) in expected {
        let is = |v: &&Variable| v.name == *variable && v.value == *value;
        assert!(all.iter().any(|v| is(&v)), "{name}: no {variable} = {value} in {all:#?}");
    }
}

#[test]
fn go_s_values_are_gdb_s() {
    if !require::programs(&["gdb", "go"]) {
        return;
    }
    let mut wrong = Vec::new();
    // Optimized, the arguments are in registers, which the called function may have changed.
    let known = [("p", "0x0"), ("text", "\"a text\"")];
    for (name, options, known) in
        [("Go", &[][..], &[][..]), ("Go -N -l", &["-gcflags=all=-N -l"], &known)]
    {
        let crash = go(options);
        let (same, more) = compare(name, &crash, &mut wrong);
        println!("{name}: {same} as gdb's, {more} that gdb does not know");
        has(name, &crash, known);
        wrong.extend((same == 0).then(|| format!("{name}: no variable is as gdb's")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The types of the standard libraries, of which gdb alone shows how they are made.
#[test]
fn texts_and_containers_are_shown() {
    if !require::programs(&["gdb", "g++", "rustc"]) {
        return;
    }
    let cpp = Crash::compiled(&["g++", "-g", "-O0"], "values.cpp");
    let expected = [("numbers", "3 elements {10, 20, 30}"), ("label", "\"label of a turnip\"")];
    has("C++", &cpp, &expected);
    let rust = Crash::compiled(&["rustc", "-g"], "values.rs");
    has(
        "Rust",
        &rust,
        &[
            ("text", "\"owned text\""),
            ("owned", "\"owned text\""),
            ("list", "3 elements [1, 2, 3]"),
            ("numbers", "3 elements [1, 2, 3]"),
            ("maybe", "Some(-12)"),
            ("none", "None"),
            ("order", "Named(\"for a friend\")"),
            ("other", "Sized {wide: 9, high: -1}"),
            ("empty", "Empty"),
            ("pair", "Pair(-1, 2)"),
            ("array", "[5, -6]"),
            ("letter", "223 'ß'"),
            ("item", "Item {count: 3, label: \"pears\", token: <hidden>}"),
        ],
    );
}

/// Values of hidden names are never there, and without texts no text is.
#[test]
fn secrets_are_kept_out() {
    if !require::programs(&["gdb", "gcc", "g++"]) {
        return;
    }
    let crash = Crash::compiled(&["g++", "-g", "-O0"], "values.cpp");
    let text = crash.info(&["--full"]);
    assert!(text.contains("password = <hidden>") && !text.contains("not to be seen"), "{text}");
    assert!(text.contains("a turnip"), "{text}");
    let text = crash.info(&["--full", "--no-strings"]);
    assert!(!text.contains("turnip") && !text.contains("{10, 20, 30}"), "{text}");
    assert!(text.contains("<contents not shown>") && text.contains("total = 61"), "{text}");
    // Nothing of this where it was not asked for.
    let text = crash.info(&[]);
    assert!(!text.contains("total") && !text.contains("turnip"), "{text}");

    let crash = Crash::compiled(&["g++", "-g", "-O0"], "hidden.cpp");
    let text = crash.info(&["--full"]);
    assert!(text.contains("both = <hidden>") && text.contains("numbers = {4, 5, 6}"), "{text}");
    assert!(text.contains("words = {in = {text = ") && text.contains("raw = "), "{text}");
    let text = crash.info(&["--full", "--no-strings"]);
    for name in ["wide", "wider", "bytes", "words"] {
        assert!(text.contains(&format!("{name} = <contents not shown>")), "{name}: {text}");
    }
    assert!(text.contains("numbers = {4, 5, 6}") && !text.contains("raw = "), "{text}");

    let crash = Crash::compiled(&["gcc", "-g", "-O0"], "values.c");
    let text = crash.info(&["--full"]);
    let line = "innermost (n=12, text=0x";
    assert!(text.contains(line) && text.contains("password=<hidden>"), "{text}");
    let all = crash.told(&["--frames", "1"]);
    assert!(all.iter().all(|v| v.frame == 0) && !all.is_empty(), "{all:?}");
}
