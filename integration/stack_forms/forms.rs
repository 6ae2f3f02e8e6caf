//! The programs, and what must be said of each.

/// A program, and where its debug information is.
pub struct Form {
    pub name: &'static str,
    /// Makes `$P`, the program, and what else there is below `$R`, its root. Where gdb is to read
    /// another file than `$P`, that is `$P.whole`. `$P.after` is run when there is a core. `$S` has
    /// the sources, `$ID` is an option of the linker. What lies beside `$R` is in no root.
    pub script: &'static str,
    pub tools: &'static [&'static str],
    /// The functions that matter, in order.
    pub expected: &'static [&'static str],
    /// What the text has.
    pub says: &'static [&'static str],
    /// What it must not have.
    pub never: &'static str,
}

/// What rustc makes of `-C split-debuginfo=packed`, in the version `$v` of DWARF. gdb is given the
/// same program with .dwo files of version 4: of version 5 gdb 13 misses inlined functions.
macro_rules! rust_package {
    () => {
        r#"mkdir "$R/../build"; cd "$R/../build"
            build() {
                rustc -g -O -C panic=abort -C dwarf-version=$v -C link-arg=$ID \
                    -C split-debuginfo=$1 "$S"/panic.rs -o program
            }
            build packed; cp program "$P"; mv program.dwp "$P.later"
            v=4; build unpacked; cp program "$P.whole"
            printf 'mv "$P.later" "$P.dwp"' > "$P.after""#
    };
}

/// What the scripts call: the compiler with both sources, and where the debug information of a
/// program lies by its build-id.
pub const PRELUDE: &str = r#"
shop() { g++ -O1 "$@" "$S/basket.cpp" "$S/till.cpp"; }
by_id() {
    id=$(readelf -n "$1" | sed -n 's/.*Build ID: //p')
    directory=$R/usr/lib/debug/.build-id/${id%"${id#??}"}
    mkdir -p "$directory"
    echo "$directory/${id#??}.debug"
}
"#;

/// With all names: `price` is inlined into `sum`.
const ALL: &[&str] = &["price", "sum", "sell", "main"];
/// From a table of symbols, which knows nothing of inlined functions.
const SYMBOLS: &[&str] = &["sum", "sell", "main"];
const RUST: &[&str] = &["panic_bounds_check", "open", "main", "lang_start_internal"];
const LINES: &[&str] = &["basket.cpp:7", "basket.cpp:16", "till.cpp:7", "till.cpp:13"];

pub const FORMS: [Form; 18] = [
    Form {
        name: "separate-by-build-id",
        script: r#"shop -g $ID -o "$P.whole"
            objcopy --only-keep-debug "$P.whole" "$(by_id "$P.whole")"
            strip -o "$P" "$P.whole""#,
        tools: &["g++", "objcopy"],
        expected: ALL,
        says: LINES,
        never: "??",
    },
    Form {
        name: "separate-symbols-only",
        script: r#"shop $ID -o "$P.whole"
            objcopy --only-keep-debug "$P.whole" "$(by_id "$P.whole")"
            strip -o "$P" "$P.whole""#,
        tools: &["g++", "objcopy"],
        expected: SYMBOLS,
        says: &["shop::Basket::sum"],
        never: "??",
    },
    Form {
        name: "dwz",
        script: r#"shop -g -gdwarf-4 $ID -o "$P.whole"
            shop -g -gdwarf-4 -DOTHER -o "$P.other"
            debug=$(by_id "$P.whole"); mkdir "$R/usr/lib/debug/.dwz"
            strip -o "$P" "$P.whole"
            objcopy --only-keep-debug "$P.whole" "$debug"
            objcopy --only-keep-debug "$P.other" "$P.other.debug"
            dwz -m "$R/usr/lib/debug/.dwz/common" -M /usr/lib/debug/.dwz/common \
                "$debug" "$P.other.debug"
            readelf -S "$debug" | grep -q gnu_debugaltlink"#,
        tools: &["g++", "objcopy", "dwz"],
        expected: ALL,
        says: LINES,
        never: "??",
    },
    Form {
        name: "dwz-beside",
        script: r#"shop -g -gdwarf-4 $ID -o "$P"
            shop -g -gdwarf-4 -DOTHER -o "$P.other"; cd "${P%/*}"
            dwz -m common.dwz program program.other
            readelf -S "$P" | grep -q gnu_debugaltlink"#,
        tools: &["g++", "dwz"],
        expected: ALL,
        says: LINES,
        never: "??",
    },
    Form {
        name: "debuglink",
        script: r#"shop -g -Wl,--build-id=none -o "$P.whole"
            mkdir "${P%/*}/.debug"
            objcopy --only-keep-debug "$P.whole" "${P%/*}/.debug/program.debug"
            strip -o "$P" "$P.whole"
            objcopy --add-gnu-debuglink="${P%/*}/.debug/program.debug" "$P""#,
        tools: &["g++", "objcopy"],
        expected: ALL,
        says: LINES,
        never: "??",
    },
    Form {
        name: "debuglink-in-usr-lib-debug",
        script: r#"shop -g $ID -o "$P.whole"
            d="$R/usr/lib/debug${P%/*}"; mkdir -p "$d"
            objcopy --only-keep-debug "$P.whole" "$d/program.debug"
            strip -o "$P" "$P.whole"
            objcopy --add-gnu-debuglink="$d/program.debug" "$P""#,
        tools: &["g++", "objcopy"],
        expected: ALL,
        says: LINES,
        never: "??",
    },
    Form {
        name: "debuglink-of-another-build",
        script: r#"shop -g -Wl,--build-id=none -o "$P.whole"
            objcopy --only-keep-debug "$P.whole" "${P%/*}/program.debug"
            strip -o "$P" "$P.whole"
            objcopy --add-gnu-debuglink="${P%/*}/program.debug" "$P"
            printf x >> "${P%/*}/program.debug"; cp "$P" "$P.whole""#,
        tools: &["g++", "objcopy"],
        expected: &["??", "??", "??"],
        says: &[],
        never: "basket.cpp",
    },
    Form {
        name: "gnu-debugdata",
        script: r#"shop -g $ID -o "$P"
            objcopy -S --remove-section .gdb_index --keep-symbols /dev/null "$P" "$P.small" || true
            objcopy --only-keep-debug "$P" "$P.small"
            strip --strip-debug "$P.small"
            xz -f "$P.small"; strip "$P"
            objcopy --add-section .gnu_debugdata="$P.small.xz" "$P"; rm "$P.small.xz""#,
        tools: &["g++", "objcopy", "xz"],
        expected: SYMBOLS,
        says: &["shop::Basket::sum", "sell(shop::Basket const&)"],
        never: "??",
    },
    Form {
        name: "package",
        script: r#"shop -g $ID -o "$P" \
            -Xlinker \
            --package-metadata='{"type":"deb","os":"debian","name":"shop","version":"1.2-3"}'"#,
        tools: &["g++"],
        expected: ALL,
        says: &["Package: shop 1.2-3 (deb of debian)\n"],
        never: "??",
    },
    Form {
        name: "split-dwarf-4",
        script: r#"cd "${P%/*}"; shop -gdwarf-4 -gsplit-dwarf $ID -o "$P""#,
        tools: &["g++"],
        expected: ALL,
        says: LINES,
        never: "not found: ",
    },
    Form {
        name: "split-dwarf-5",
        script: r#"cd "${P%/*}"; shop -gdwarf-5 -gsplit-dwarf $ID -o "$P""#,
        tools: &["g++"],
        expected: ALL,
        says: LINES,
        never: "not found: ",
    },
    Form {
        // binutils' dwp knows DWARF 4 only.
        name: "split-dwarf-package",
        script: r#"cd "${P%/*}"; shop -gdwarf-4 -gsplit-dwarf $ID -o "$P"
            dwp -e "$P" -o "$P.dwp"; rm *.dwo"#,
        tools: &["g++", "dwp"],
        expected: ALL,
        says: LINES,
        never: "not found: ",
    },
    Form {
        name: "split-dwarf-lost",
        script: r#"cd "${P%/*}"; shop -gdwarf-5 -gsplit-dwarf $ID -o "$P"
            strip -g -o "$P.whole" "$P"
            printf 'rm "$P"-*.dwo' > "$P.after""#,
        tools: &["g++"],
        expected: SYMBOLS,
        says: &["split debug information not found: /", "/program-basket.dwo\n"],
        never: ".cpp:",
    },
    Form {
        // gdb 13 dies of packages of version 5: it reads the .dwo files, which nobody else finds.
        name: "split-dwarf-package-5",
        script: r#"mkdir "$R/../build"; cd "$R/../build"
            shop -gdwarf-5 -gsplit-dwarf $ID -o program
            cp program "$P"; cp program "$P.whole"
            thorin -e program -o "$P.later"
            printf 'mv "$P.later" "$P.dwp"' > "$P.after""#,
        tools: &["g++", "thorin"],
        expected: ALL,
        says: LINES,
        never: "not found: ",
    },
    Form {
        name: "rust-package-4",
        script: concat!("v=4\n", rust_package!()),
        tools: &["rustc"],
        expected: RUST,
        says: &["panic.rs:7", "panic.rs:13"],
        never: "not found: ",
    },
    Form {
        name: "rust-package-5",
        script: concat!("v=5\n", rust_package!()),
        tools: &["rustc"],
        expected: RUST,
        says: &["panic.rs:7", "panic.rs:13"],
        never: "not found: ",
    },
    Form {
        name: "tail-calls",
        script: r#"gcc -g -O2 $ID "$S"/tail_calls.c -o "$P""#,
        tools: &["gcc"],
        expected: &["innermost", "second", "first", "begin", "outer", "main"],
        says: &["  #2   first at ", "tail_calls.c:19 [tail call]"],
        never: "??",
    },
    Form {
        name: "tail-calls-by-two-ways",
        script: r#"gcc -gdwarf-4 -O2 -DTWO_WAYS $ID "$S"/tail_calls.c -o "$P""#,
        tools: &["gcc"],
        expected: &["innermost", "second", "outer", "main"],
        says: &["tail_calls.c:13 [tail call]"],
        never: " first ",
    },
];
