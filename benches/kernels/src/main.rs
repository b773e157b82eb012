//! How fast the kernels are beside what this machine can do: the share of its peak of fused multiply-adds, of its memory
//! bandwidth, and the ratio to other crates, all measured in turns within one run.
//!
//! `cargo run --release -p dpo-eval-kernel-benches [-- WORD…]` measures the rows whose name holds every WORD;
//! `DPO_EVAL_ISA` and `RAYON_NUM_THREADS` choose instructions and threads. With `--cpu-time` before the words, time is that of
//! the threads on a CPU: for a machine that others use meanwhile. It doesn't see threads wait for each other.

mod machine;
mod rows;

use std::time::Duration;

use dpo_eval_numerics::isa;

/// Every row is measured once a round, so that what else the machine does falls on all rows alike.
const ROUNDS: usize = 9;
/// A measurement repeats its work for at least this long.
const LONG_ENOUGH: Duration = Duration::from_millis(30);

/// What a row's work is counted in, and what it is held against.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    /// Floating-point operations, two a multiply-add; against the peak of multiply-adds in registers.
    Flops,
    /// Bytes; against the plain read of the same memory, the row's first rival.
    Bytes,
    /// Elements; against nothing.
    Elements,
}

/// Work that is measured.
type Run = Box<dyn FnMut() + Send>;

/// One line of the table.
struct Row {
    name: String,
    threads: usize,
    unit: Unit,
    /// Units of one run.
    work: f64,
    run: Run,
    /// The same work done by others.
    rivals: Vec<(&'static str, Run)>,
}

/// What the rounds of one row gave.
#[derive(Default)]
struct Measured {
    rates: Vec<f64>,
    peaks: Vec<f64>,
    rivals: Vec<Vec<f64>>,
}

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let clock = if words.first().is_some_and(|word| word == "--cpu-time") { Clock::Cpu } else { Clock::Wall };
    words.retain(|word| word != "--cpu-time");
    let all_threads = rayon::current_num_threads();
    println!("{}, {all_threads} threads, {}, {clock:?} time", machine::cpu(), isa::active());
    println!("{ROUNDS} rounds; rates are min / median / max; shares and ratios are median (of the best)\n");
    for group in rows::groups(all_threads) {
        let mut rows = group();
        rows.retain(|row| words.iter().all(|word| row.name.contains(word)));
        let mut measured: Vec<Measured> = rows.iter().map(|_| Measured::default()).collect();
        for _ in 0..ROUNDS {
            rows.iter_mut().zip(&mut measured).for_each(|(row, measured)| measure(row, clock, measured));
        }
        rows.iter().zip(&measured).for_each(|(row, measured)| print(row, measured));
    }
}

fn measure(row: &mut Row, clock: Clock, measured: &mut Measured) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(row.threads).build().expect("a pool of threads");
    let rate_of = |work: f64, run: &mut (dyn FnMut() + Send)| pool.install(|| rate(work, clock, row.threads, run));
    if row.unit == Unit::Flops {
        measured.peaks.push(rate_of(machine::PEAK_FLOPS * row.threads as f64, &mut || machine::peak(isa::active())));
    }
    measured.rates.push(rate_of(row.work, &mut row.run));
    measured.rivals.resize(row.rivals.len(), Vec::new());
    for ((_, run), rates) in row.rivals.iter_mut().zip(&mut measured.rivals) {
        rates.push(rate_of(row.work, run));
    }
}

/// Which time counts.
#[derive(Debug, Clone, Copy)]
enum Clock {
    Wall,
    /// Of all threads of this process, on a CPU.
    Cpu,
}

impl Clock {
    fn now(self) -> Duration {
        let id = match self {
            Self::Wall => libc::CLOCK_MONOTONIC,
            Self::Cpu => libc::CLOCK_PROCESS_CPUTIME_ID,
        };
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec.
        assert_eq!(unsafe { libc::clock_gettime(id, &mut time) }, 0, "the clock {self:?} can't be read");
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// Units of work a second, had each of the `threads` a CPU to itself.
fn rate(work: f64, clock: Clock, threads: usize, run: &mut (dyn FnMut() + Send)) -> f64 {
    run();
    let (started, mut runs, mut elapsed) = (clock.now(), 0.0, Duration::ZERO);
    while elapsed < LONG_ENOUGH {
        run();
        runs += 1.0;
        elapsed = clock.now() - started;
    }
    let threads = if matches!(clock, Clock::Cpu) { threads as f64 } else { 1.0 };
    runs * work * threads / elapsed.as_secs_f64()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// Median of the rounds' quotients, and the quotient of the two best.
fn beside(ours: &[f64], theirs: &[f64]) -> (f64, f64) {
    let quotients: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    (sorted(&quotients)[ROUNDS / 2], sorted(ours)[ROUNDS - 1] / sorted(theirs)[ROUNDS - 1])
}

fn print(row: &Row, measured: &Measured) {
    let rates = sorted(&measured.rates);
    let [min, median, max] = [rates[0], rates[ROUNDS / 2], rates[ROUNDS - 1]];
    print!("{:<44} {}t ", row.name, row.threads);
    match row.unit {
        Unit::Flops => print!("{:7.1} {:7.1} {:7.1} GFLOP/s", min / 1e9, median / 1e9, max / 1e9),
        Unit::Bytes => print!("{:7.1} {:7.1} {:7.1} GB/s   ", min / 1e9, median / 1e9, max / 1e9),
        Unit::Elements => print!("{:7.3} {:7.3} {:7.3} ns     ", 1e9 / max, 1e9 / median, 1e9 / min),
    }
    if row.unit == Unit::Flops {
        let (share, best) = beside(&measured.rates, &measured.peaks);
        print!("  {:3.0} % ({:3.0} %) of peak", 100.0 * share, 100.0 * best);
    }
    for ((name, _), theirs) in row.rivals.iter().zip(&measured.rivals) {
        let (ratio, best) = beside(&measured.rates, theirs);
        print!("  {ratio:.2} ({best:.2}) × {name}");
    }
    println!();
}
