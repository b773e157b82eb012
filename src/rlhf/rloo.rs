//! REINFORCE with a leave-one-out baseline (Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740, eq. 8).

/// For each completion of a prompt, its reward less the mean reward of the others.
pub(crate) fn advantages(rewards: &[f64]) -> Vec<f64> {
    let (sum, others) = (rewards.iter().sum::<f64>(), (rewards.len() - 1) as f64);
    rewards.iter().map(|reward| reward - (sum - reward) / others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_add_up_to_nothing_and_take_no_notice_of_a_shift() {
        let rewards = [0.5, -1.0, 2.0];
        let found = advantages(&rewards);
        assert!(found.iter().sum::<f64>().abs() < 1e-12);
        assert!((found[0] - (0.5 - 0.5)).abs() < 1e-12 && (found[2] - (2.0 + 0.25)).abs() < 1e-12);
        let moved = advantages(&rewards.map(|r| r + 7.0));
        assert!(found.iter().zip(moved).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}
