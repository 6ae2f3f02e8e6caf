//! How the process is: signals, limits, threads, memory.
use crate::oracle::row::{Forced, Row};

pub fn rows() -> Vec<Row> {
    let mut rows = signals();
    rows.extend(limits());
    rows.extend(limits_in_the_notes());
    rows.extend(memory());
    rows
}

fn signals() -> Vec<Row> {
    let row = |name, death: &str| Row::new(name).pattern("/cores/core.%s").death(death);
    vec![
        row("signal-segv", "null"),
        row("signal-bus", "bus"),
        row("signal-fpe", "div"),
        row("signal-ill", "ud2"),
        row("signal-trap", "int3"),
        row("signal-abrt", "abort"),
        row("signal-quit", "3"),
        row("signal-sys", "31"),
        row("signal-xcpu", "24"),
        row("signal-xfsz", "25"),
        row("signal-segv-sent", "11"),
        // Their action is not Core.
        row("signal-term", "15"),
        row("signal-kill", "9"),
    ]
}

/// The kernel counts whole units: a header, a note's name, its content, a component of the layout
/// note. Where the file ends under a limit shows each of them; the notes of one thread end between
/// these on most processors.
fn limits_in_the_notes() -> impl Iterator<Item = Row> {
    (4200..5300)
        .step_by(40)
        .map(|limit| Row::new(format!("limit-notes-{limit}")).parent(&format!("--core {limit}")))
}

fn limits() -> Vec<Row> {
    let row = |name, limit: &str| {
        Row::new(name).pattern("/cores/core.%c").parent(&format!("--core {limit}"))
    };
    vec![
        row("limit-0", "0").forced(Forced::CoreFlag),
        // The kernel does not even start the helper then.
        row("limit-1", "1"),
        row("limit-2", "2").forced(Forced::CoreFlag),
        row("limit-4095", "4095").forced(Forced::CoreFlag),
        row("limit-4096", "4096"),
        row("limit-4097", "4097"),
        row("limit-8192", "8192"),
        row("limit-12345", "12345"),
        row("limit-100000", "100000"),
        row("limit-in-zeros", "200000").zeros(),
        row("limit-1M", "1048576").crasher("--fill 2"),
        row("limit-1M-holes-are-free", "1048576").crasher("--tail 8"),
        row("limit-unlimited", "unlimited").crasher("--fill 2"),
        // What the hook itself set, or the kernel's container has in its config.json.
        Row::new("limit-of-the-container").pattern("/cores/core.%c").parent("--core inherit"),
        Row::new("fsize-100000").parent("--fsize 100000"),
        Row::new("fsize-0").parent("--fsize 0"),
        Row::new("umask-0").parent("--umask 0"),
        Row::new("umask-022").parent("--umask 022"),
        Row::new("umask-077").parent("--umask 077"),
        Row::new("umask-0777").parent("--umask 0777").forced(Forced::CoreFlag),
        Row::new("umask-0200").parent("--umask 0200").forced(Forced::CoreFlag),
        Row::new("umask-0777-user")
            .parent("--umask 0777 --uid 1000 --gid 1000")
            .forced(Forced::CoreFlag),
    ]
}

fn memory() -> Vec<Row> {
    vec![
        Row::new("memory-zeros").zeros(),
        Row::new("memory-tail").crasher("--tail 32"),
        // The largest mapping comes last: the file ends in a hole.
        Row::new("memory-ends-in-hole").crasher("--tail 32").sysctl("kernel/core_sort_vma", "1"),
        Row::new("memory-ends-in-hole-full")
            .crasher("--tail 32")
            .sysctl("kernel/core_sort_vma", "1")
            .prepare(|bundle| super::places::tmpfs_of(bundle, 16))
            .forced(Forced::MoreFits),
        Row::new("memory-large").crasher("--fill 24"),
        Row::new("filter-none").parent("--filter 0x0"),
        Row::new("filter-all").parent("--filter 0x1ff"),
        Row::new("filter-anonymous").parent("--filter 0x1"),
        Row::new("threads-1").crasher("--threads 1"),
        Row::new("threads-64").crasher("--threads 64"),
        Row::new("threads-64-last").crasher("--threads 64 --in-thread").pattern("/cores/core.%i"),
        Row::new("threads-leader-gone")
            .crasher("--threads 3 --in-thread --leader-exits")
            .pattern("/cores/core.%i.%p.%e.%E"),
        Row::new("memory-odd").crasher("--odd"),
        Row::new("memory-odd-all").crasher("--odd").parent("--filter 0x1ff"),
        // Some processors save so much for each thread that all of them are more than
        // the kernel's default allows.
        Row::new("threads-1000")
            .crasher("--threads 1000")
            .sysctl("kernel/core_file_note_size_limit", "16777216"),
        Row::new("threads-1000-last")
            .crasher("--threads 1000 --in-thread")
            .pattern("/cores/core.%i")
            .sysctl("kernel/core_file_note_size_limit", "16777216"),
    ]
}
