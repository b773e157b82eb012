//! A run that was killed goes on where it was and gives the same bytes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{assert_same_files, dpo_eval, finished_smoke, run_expecting, workplace};

/// Kills fall at every stage: each attempt lives a little longer than the last one, and goes on from what that one left.
#[test]
fn a_run_killed_at_ten_and_more_moments_gives_the_bytes_of_an_unbroken_one() {
    let folder = workplace();
    let mut kills = 0;
    let mut allowed = Duration::from_millis(60);
    loop {
        let mut child = dpo_eval(folder.path())
            .args(["suite", "run", "suites/smoke.toml", "--quiet"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if started.elapsed() > allowed && kills < 40 {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        match ended {
            Some(status) => {
                assert!(status.success());
                break;
            }
            None => kills += 1,
        }
        allowed += Duration::from_millis(25);
    }
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
