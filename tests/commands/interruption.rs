//! A run that was killed goes on where it was and gives the same bytes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::{assert_same_files, dpo_eval, finished_smoke, run_expecting, run_through_kills, workplace};

#[test]
fn a_run_killed_at_ten_and_more_moments_gives_the_bytes_of_an_unbroken_one() {
    let folder = workplace();
    let kills = run_through_kills(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet"]);
    assert!(kills >= 10, "only {kills} kills: the suite became too fast for these delays");
    assert_same_files(&finished_smoke().join("reports/smoke"), &folder.path().join("reports/smoke"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_with_130_and_the_next_run_goes_on() {
    let folder = workplace();
    let mut child = dpo_eval(folder.path())
        .args(["suite", "run", "suites/smoke.toml"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first finished cell is announced; everything else is still to come.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("data "), "{first}");
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let stderr: String = lines.map(|line| line.unwrap() + "\n").collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{stderr}");
    assert!(stderr.contains("run the same command again"), "{stderr}");
    run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet"], 0);
    assert_same_files(&finished_smoke().join("reports/smoke"), &folder.path().join("reports/smoke"));
}
