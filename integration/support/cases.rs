//! One named test per row, so that what fails is named by its runtime or row. Each takes the host
//! for itself: what one row leaves behind changes no other.

/// One test per row of a function: `cases!(fits: small(1), large(9))` makes the tests
/// `fits::small` and `fits::large`, which call `fits(1)` and `fits(9)`.
#[macro_export]
macro_rules! cases {
    ($name:ident: $($case:ident($($argument:expr),* $(,)?)),+ $(,)?) => {
        mod $name {
            #[allow(unused_imports, reason = "the rows may be literals")]
            use super::*;

            $(#[test]
            fn $case() {
                super::$name($($argument),*);
            })+
        }
    };
}

/// One test per runtime of each function, which takes the [`Kind`](crate::runtime::Kind):
/// `runc::NAME`, `crun::NAME` and `youki::NAME`.
#[macro_export]
macro_rules! per_runtime {
    ($($name:ident),+ $(,)?) => {
        $crate::per_runtime!(@ runc Runc ($($name)+) ());
        $crate::per_runtime!(@ crun Crun ($($name)+) ());
        $crate::per_runtime!(@ youki Youki ($($name)+) ());
    };
    (@ $module:ident $kind:ident ($($name:ident)*) ($($direct:ident)*)) => {
        mod $module {
            use $crate::runtime::Kind;

            $(#[test]
            fn $name() {
                if $crate::require::programs(&[Kind::$kind.name()]) {
                    super::$name(Kind::$kind);
                }
            })*

            $(#[test]
            fn $direct() {
                if $crate::require::programs(&[Kind::$kind.name()]) {
                    super::$direct($crate::scene::Engine::direct(Kind::$kind));
                }
            })*
        }
    };
}

/// One test per engine of each function, which takes the [`Engine`](crate::scene::Engine):
/// `runc::NAME`, ..., `podman_over_runc::NAME` and `podman_over_crun::NAME`. Functions before a
/// semicolon take a [`Kind`](crate::runtime::Kind), as for [`per_runtime!`].
#[macro_export]
macro_rules! per_engine {
    ($($of_runtime:ident),+; $($name:ident),+ $(,)?) => {
        $crate::per_engine!(@ ($($of_runtime)+) ($($name)+));
    };
    ($($name:ident),+ $(,)?) => {
        $crate::per_engine!(@ () ($($name)+));
    };
    (@ $of_runtime:tt $names:tt) => {
        $crate::per_runtime!(@ runc Runc $of_runtime $names);
        $crate::per_runtime!(@ crun Crun $of_runtime $names);
        $crate::per_runtime!(@ youki Youki $of_runtime $names);
        $crate::per_engine!(% podman_over_runc Runc $names);
        $crate::per_engine!(% podman_over_crun Crun $names);
    };
    (% $module:ident $kind:ident ($($name:ident)+)) => {
        mod $module {
            use $crate::runtime::Kind;

            $(#[test]
            fn $name() {
                if $crate::require::programs(&["podman", Kind::$kind.name()]) {
                    super::$name($crate::scene::Engine::podman(Kind::$kind));
                }
            })+
        }
    };
}
