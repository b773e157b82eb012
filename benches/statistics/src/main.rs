//! What dpo-eval's statistics promise, measured.
//!
//! ```sh
//! cargo run --release -p dpo-eval-statistics-benches -- coverage > golden/statistics/coverage.csv
//! python3 benches/statistics/compare.py   # speed, beside SciPy and evalica
//! ```

mod coverage;
mod judges;
mod pairs;
mod speed;
mod worlds;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["coverage"] => coverage::print(None),
        ["coverage", part @ ("means" | "pairs" | "seeds" | "judges" | "lengths")] => coverage::print(Some(part)),
        ["speed", folder] => speed::print(std::path::Path::new(folder)),
        _ => {
            eprintln!("usage: coverage [means | pairs | seeds | judges | lengths] | speed FOLDER");
            std::process::exit(2);
        }
    }
}
