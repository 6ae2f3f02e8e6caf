//! Files and directories by descriptor: a directory is opened once, and everything else relative to
//! it.

mod extents;
mod identity;
mod json;
mod lock;
mod open;
mod replace;

pub(crate) use extents::{clone_of, copy_whole, extents};
pub use identity::{FileId, FileIdentity, identity};
pub(crate) use identity::{Stat, identity_at, stat, stat_at};
pub(crate) use json::JsonFile;
pub(crate) use lock::{lock, lock_within, open_lock, try_lock};
pub use open::set_umask;
pub(crate) use open::{
    change_dir, change_root, check_own, chmod, chown, create_exclusive, create_new,
    create_readable, is_empty_dir, is_missing, link, make_dir, make_path, mkdirat, names,
    open_append, open_counter, open_dir, open_read, open_subdir, open_to_change, read_bounded,
    read_link, remove_empty_dir, rename_to, reopen_dir, symlink, unlink,
};
pub(crate) use replace::{age, is_due, rename_new, replace, replace_durably, touch};
