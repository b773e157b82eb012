//! The products of training and decoding that are measured.

use std::hint::black_box;

use dpo_eval_numerics::attention::{self, Heads, Projections, Queries, Segment};
use dpo_eval_numerics::gemm::MatRef;
use dpo_eval_numerics::{elementary, isa, linear};
use gemm::Parallelism;

use crate::{Row, Run, Unit, machine};

/// Rows that are measured in turns, made only when their turn comes: together their memory would be large.
pub fn groups(threads: usize) -> Vec<Box<dyn Fn() -> Vec<Row>>> {
    let mut counts = vec![1, threads];
    counts.dedup();
    let each = |rows: fn(usize) -> Vec<Row>| {
        let counts = counts.clone();
        Box::new(move || counts.iter().flat_map(|threads| rows(*threads)).collect()) as Box<dyn Fn() -> Vec<Row>>
    };
    vec![each(peaks), each(layouts), each(training), each(few_rows), each(decoding), each(attended), each(exponentials)]
}

/// `n` values around zero, none special.
fn values(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 / 2f32.powi(23) - 1.0).collect()
}

fn peaks(threads: usize) -> Vec<Row> {
    let peak = Row {
        name: "multiply-adds in registers".into(),
        threads,
        unit: Unit::Flops,
        work: machine::PEAK_FLOPS * threads as f64,
        run: Box::new(|| machine::peak(isa::active())),
        rivals: vec![],
    };
    let memory = values(64 << 20);
    let read = Row {
        name: "plain read of 256 MB".into(),
        threads,
        unit: Unit::Bytes,
        work: 4.0 * memory.len() as f64,
        run: Box::new(move || _ = black_box(machine::read(isa::active(), &memory))),
        rivals: vec![],
    };
    vec![peak, read]
}

/// A matrix of (rows, columns), stored transposed or not.
#[derive(Clone)]
struct Matrix {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl Matrix {
    fn new(rows: usize, columns: usize, transposed: bool) -> Self {
        Self { values: values(rows * columns), rows, columns, transposed }
    }
    fn view(&self) -> MatRef<'_> {
        match self.transposed {
            false => MatRef::rows(&self.values, self.columns),
            true => MatRef::rows(&self.values, self.rows).transposed(),
        }
    }
}

/// `c ← a b` for `a`: (m, k), `b`: (k, n), each stored transposed or not, by us and by others.
fn product(name: &str, threads: usize, m: usize, n: usize, k: usize, turned: [bool; 2]) -> Row {
    let (a, b) = (Matrix::new(m, k, turned[0]), Matrix::new(k, n, turned[1]));
    let multiply = {
        let (a, b, mut c) = (a.clone(), b.clone(), vec![0.0; m * n]);
        move || dpo_eval_numerics::gemm::gemm(m, n, k, a.view(), b.view(), &mut c, n, false)
    };
    let letter = |name: &str, turned: bool| if turned { format!("{name}ᵀ") } else { name.to_string() };
    let name = format!("{name} {m}×{n}×{k} {}{}", letter("a", turned[0]), letter("b", turned[1]));
    let mut rivals: Vec<(_, Run)> = vec![("gemm", {
        let (a, b, mut c) = (a.clone(), b.clone(), vec![0.0; m * n]);
        Box::new(move || crate_gemm(&a, &b, &mut c, threads))
    })];
    if threads == 1 {
        let mut c = vec![0.0; m * n];
        rivals.push(("matrixmultiply", Box::new(move || crate_matrixmultiply(&a, &b, &mut c))));
    }
    Row { name, threads, unit: Unit::Flops, work: (2 * m * n * k) as f64, run: Box::new(multiply), rivals }
}

fn crate_gemm(a: &Matrix, b: &Matrix, c: &mut [f32], threads: usize) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    let (x, y) = (a.view(), b.view());
    let [xr, xc, yr, yc] = [x.row_stride, x.col_stride, y.row_stride, y.col_stride].map(|s| s as isize);
    let parallelism = if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    let (x, y, c) = (x.data.as_ptr(), y.data.as_ptr(), c.as_mut_ptr());
    // SAFETY: the strides describe the three matrices, which hold m × k, k × n and m × n elements.
    unsafe { gemm::gemm(m, n, k, c, 1, n as isize, false, x, xc, xr, y, yc, yr, 0.0, 1.0, false, false, false, parallelism) }
}

fn crate_matrixmultiply(a: &Matrix, b: &Matrix, c: &mut [f32]) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    let (x, y) = (a.view(), b.view());
    let [xr, xc, yr, yc] = [x.row_stride, x.col_stride, y.row_stride, y.col_stride].map(|s| s as isize);
    let (x, y, c) = (x.data.as_ptr(), y.data.as_ptr(), c.as_mut_ptr());
    // SAFETY: as in `crate_gemm`.
    unsafe { matrixmultiply::sgemm(m, k, n, 1.0, x, xr, xc, y, yr, yc, 0.0, c, n as isize, 1) }
}

fn layouts(threads: usize) -> Vec<Row> {
    let layouts = [[false, false], [false, true], [true, false], [true, true]];
    layouts.map(|turned| product("gemm", threads, 2048, 3072, 768, turned)).into()
}

/// The products of a training step of a model of hidden size 384, inner 1024 and vocabulary 4096 over 1800 tokens.
fn training(threads: usize) -> Vec<Row> {
    let (rows, forward, weight) = (1800, [false, true], [true, false]);
    vec![
        product("forward", threads, rows, 384, 384, forward),
        product("forward", threads, rows, 128, 384, forward),
        product("forward", threads, rows, 1024, 384, forward),
        product("forward", threads, rows, 384, 1024, forward),
        product("forward", threads, rows, 4096, 384, forward),
        product("input gradient", threads, rows, 384, 1024, [false, false]),
        product("input gradient", threads, rows, 384, 4096, [false, false]),
        product("weight gradient", threads, 384, 384, rows, weight),
        product("weight gradient", threads, 128, 384, rows, weight),
        product("weight gradient", threads, 1024, 384, rows, weight),
        product("weight gradient", threads, 384, 1024, rows, weight),
        product("weight gradient", threads, 4096, 384, rows, weight),
    ]
}

/// `y ← x Wᵀ` for few rows of `x` and a prepared W: the share is that of the time a plain read of W takes.
fn matvec(threads: usize, m: usize, outputs: usize, inputs: usize) -> Row {
    let (x, weight) = (values(m * inputs), values(outputs * inputs));
    let (plain, mut y) = (weight.clone(), vec![0.0; m * outputs]);
    let prepared = linear::prepare(&weight, inputs);
    let mut z = y.clone();
    Row {
        name: format!("decoding {m} rows, {outputs}×{inputs}"),
        threads,
        unit: Unit::Bytes,
        work: 4.0 * weight.len() as f64,
        run: {
            let x = x.clone();
            Box::new(move || linear::forward_prepared(&x, &prepared, &mut y, false))
        },
        rivals: vec![
            ("plain read", Box::new(move || _ = black_box(machine::read(isa::active(), &plain)))),
            ("unprepared", Box::new(move || linear::forward(&x, &weight, inputs, &mut z, false))),
        ],
    }
}

fn few_rows(threads: usize) -> Vec<Row> {
    let weights = [(4096, 4096), (4096, 4400), (4096, 384), (384, 1024), (384, 384)];
    weights.into_iter().map(|(outputs, inputs)| matvec(threads, 1, outputs, inputs)).collect()
}

/// Products of a batch being decoded, against the peak of multiply-adds.
fn decoding(threads: usize) -> Vec<Row> {
    let of = |m: usize, outputs: usize, inputs: usize| {
        let (x, prepared) = (values(m * inputs), linear::prepare(&values(outputs * inputs), inputs));
        let mut y = vec![0.0; m * outputs];
        let run = Box::new(move || linear::forward_prepared(&x, &prepared, &mut y, false));
        Row { run, ..product("decoding", threads, m, outputs, inputs, [false, true]) }
    };
    let sizes = [(384, 384), (1024, 384), (384, 1024), (4096, 384)];
    let few = [2, 4, 8, 15].map(|m| of(m, 4096, 384));
    few.into_iter().chain(sizes.map(|(outputs, inputs)| of(32, outputs, inputs))).collect()
}

/// Causal attention of whole sequences, 1024 tokens and 8 heads of 64 in all. Counted are the products of scores that are needed:
/// L (L + 1) / 2 for each sequence and head, two products forward, five backward (the scores are computed again).
fn attended(threads: usize) -> Vec<Row> {
    let heads = Heads { heads: 8, kv_heads: 8, head_dim: 64, ..Heads::default() };
    let lengths = [128, 256, 512];
    let rows = lengths.map(|length| {
        let tokens = 1024;
        let size = tokens * heads.query_width();
        let scores = (tokens / length * heads.heads * length * (length + 1) / 2) as f64;
        let segments = move || -> Vec<Segment> {
            (0..tokens / length).map(|s| Segment { rows: s * length..(s + 1) * length, parent: None }).collect()
        };
        let (q, k, v, dout) = (values(size), values(size), values(size), values(size));
        let forward = {
            let (q, k, v, segments, mut out) = (q.clone(), k.clone(), v.clone(), segments(), vec![0.0; size]);
            let queries = Queries::all(&segments);
            move || attention::forward(&segments, &queries, heads, Projections { q: &q, k: &k, v: &v }, &mut out)
        };
        let backward = {
            let segments = segments();
            let queries = Queries::all(&segments);
            move || _ = black_box(attention::backward(&segments, &queries, heads, Projections { q: &q, k: &k, v: &v }, &dout))
        };
        let row = |name: &str, products: f64, run: Run| Row {
            name: format!("attention {name}, length {length}"),
            threads,
            unit: Unit::Flops,
            work: products * 2.0 * 64.0 * scores,
            run,
            rivals: vec![("its exponentials alone", Box::new(exponentials_of(scores as usize / threads)))],
        };
        [row("forward", 2.0, Box::new(forward)), row("backward", 5.0, Box::new(backward))]
    });
    rows.into_iter().flatten().collect()
}

/// `n` exponentials on each thread, in pieces that stay in the cache.
fn exponentials_of(n: usize) -> impl FnMut() + Send {
    let xs = values(4096);
    move || {
        rayon::broadcast(|_| {
            let mut xs = xs.clone();
            for piece in (0..n).step_by(xs.len()) {
                let length = xs.len().min(n - piece);
                elementary::exp(&mut xs[..length]);
                // As far from zero as before, not ever larger.
                xs[..length].iter_mut().for_each(|x| *x -= 1.0);
            }
            black_box(&xs);
        });
    }
}

fn exponentials(threads: usize) -> Vec<Row> {
    let (n, run) = (1 << 16, exponentials_of(1 << 16));
    let work = (n * threads) as f64;
    vec![Row { name: "exp in cache".into(), threads, unit: Unit::Elements, work, run: Box::new(run), rivals: vec![] }]
}
