//! A study through whole commands: methods compared at equal KL, claims decided, all of it from the store a second time.

use std::fs;

use crate::support::{run_expecting, workplace};

#[test]
fn a_study_compares_its_methods_decides_its_claims_and_stands_first_in_the_report() {
    let folder = workplace();
    let folder = folder.path();
    let suite = ["suite", "run", "suites/frontier-smoke.toml", "--quiet"];
    let printed = run_expecting(folder, &suite, 0).stdout;
    assert!(printed.contains("Claims\n"), "{printed}");
    let report = folder.join("reports/frontier-smoke");
    let read = |name: &str| fs::read_to_string(report.join(name)).unwrap();

    // Of two seeds: two strengths of three checkpoints for each method that trains, and three n.
    let points = read("frontier.csv");
    let of = |method: &str| points.lines().filter(|line| line.starts_with(&format!("{method},"))).collect::<Vec<_>>();
    assert_eq!([of("DPO").len(), of("PPO").len(), of("Best of n").len()], [12, 12, 6], "{points}");
    // log n − (n − 1) / n, whoever judges.
    for line in of("Best of n") {
        let fields: Vec<&str> = line.split(',').collect();
        let (n, kl): (f64, f64) = (fields[3].parse().unwrap(), fields[4].parse().unwrap());
        assert!((kl - (n.ln() - (n - 1.0) / n)).abs() < 1e-9, "{line}");
    }
    let claims = read("claims.csv");
    let decided: Vec<&str> = claims.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(decided, ["frontier", "seed-variance", "calibration", "over-optimisation", "beta-orders-kl"]);
    // So small a world gives every text the same gold reward, so that nothing varies between seeds.
    assert_eq!(claims.matches("could not be measured").count(), 1, "{claims}");

    let page = read("index.html");
    let (claims, verdict) = (page.find("<section id=\"study\">").unwrap(), page.find("<section id=\"verdict\">").unwrap());
    assert!(claims < verdict && page.contains("Win rate over sampling temperature"));
    assert!(read("summary.md").contains("### Claims"));

    // The same bytes from the store, and from the report's own data.
    let before = read("report.json");
    run_expecting(folder, &suite, 0);
    assert_eq!(read("report.json"), before);
}
