//! Small dense linear algebra: symmetric positive definite matrices, row by row.

/// L with L Lᵀ = `a`, `a` an (n, n) symmetric positive definite matrix. None where it isn't that.
fn cholesky(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut l = a.to_vec();
    for j in 0..n {
        for i in j..n {
            let sum: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
            let rest = a[i * n + j] - sum;
            if i > j {
                l[i * n + j] = rest / l[j * n + j];
            } else if rest > 0.0 {
                l[j * n + j] = rest.sqrt();
            } else {
                return None;
            }
        }
    }
    Some(l)
}

/// x with `a` x = `b`.
pub fn solve(a: &[f64], b: &[f64]) -> Option<Vec<f64>> {
    let n = b.len();
    let l = cholesky(a, n)?;
    Some(substitute(&l, b))
}

/// The inverse of `a`, (n, n).
pub fn inverse(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let l = cholesky(a, n)?;
    let mut result = vec![0.0; n * n];
    for j in 0..n {
        let unit: Vec<f64> = (0..n).map(|i| f64::from(u8::from(i == j))).collect();
        for (i, value) in substitute(&l, &unit).into_iter().enumerate() {
            result[i * n + j] = value;
        }
    }
    Some(result)
}

/// `a` `b`, both (n, n).
pub fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let mut result = vec![0.0; n * n];
    for i in 0..n {
        for k in 0..n {
            for j in 0..n {
                result[i * n + j] += a[i * n + k] * b[k * n + j];
            }
        }
    }
    result
}

fn substitute(l: &[f64], b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut x = b.to_vec();
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| l[i * n + k] * x[k]).sum();
        x[i] = (x[i] - sum) / l[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| l[k * n + i] * x[k]).sum();
        x[i] = (x[i] - sum) / l[i * n + i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::super::reference::close;
    use super::*;

    #[test]
    fn the_inverse_undoes_the_matrix() {
        let a = [4.0, 1.0, 0.5, 1.0, 3.0, -1.0, 0.5, -1.0, 2.0];
        let identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        close(&product(&a, &inverse(&a, 3).unwrap(), 3), &identity, 1e-12);
        let x = solve(&a, &[1.0, 2.0, 3.0]).unwrap();
        let back: Vec<f64> = (0..3).map(|i| (0..3).map(|j| a[i * 3 + j] * x[j]).sum()).collect();
        close(&back, &[1.0, 2.0, 3.0], 1e-12);
        assert_eq!(inverse(&[1.0, 2.0, 2.0, 1.0], 2), None);
    }
}
