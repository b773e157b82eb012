//! Row reductions: element `i` goes to lane `i % 16`, ascending; then a fixed tree over the sixteen lanes.

/// The fixed tree over sixteen lanes, 16→8→4→2→1, joining lane `l + half` to lane `l`.
fn tree<T: Copy>(mut lanes: [T; 16], join: impl Fn(T, T) -> T) -> T {
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] = join(lanes[l], lanes[l + half]);
        }
    }
    lanes[0]
}

/// Element `i` goes to lane `i % 16` in ascending order; then the tree. `initial` is the empty lane.
fn lanes<T: Copy>(initial: T, count: usize, step: impl Fn(T, usize) -> T) -> [T; 16] {
    let mut lanes = [initial; 16];
    for i in 0..count {
        lanes[i % 16] = step(lanes[i % 16], i);
    }
    lanes
}

/// Σ x.
pub fn sum(xs: &[f32]) -> f32 {
    tree(lanes(0.0, xs.len(), |sum: f32, i| sum + xs[i]), |a, b| a + b)
}

/// Σ x², fused.
pub fn sum_squares(xs: &[f32]) -> f32 {
    tree(lanes(0.0, xs.len(), |sum: f32, i| xs[i].mul_add(xs[i], sum)), |a, b| a + b)
}

/// Σ x y, fused, over two slices of one length.
pub fn dot(xs: &[f32], ys: &[f32]) -> f32 {
    assert_eq!(xs.len(), ys.len());
    tree(lanes(0.0, xs.len(), |sum: f32, i| xs[i].mul_add(ys[i], sum)), |a, b| a + b)
}

/// The largest element, NaN passed over; −∞ of nothing.
pub fn max(xs: &[f32]) -> f32 {
    let lanes = lanes(f32::NEG_INFINITY, xs.len(), |most, i| if xs[i] > most { xs[i] } else { most });
    tree(lanes, |a, b| if a > b { a } else { b })
}

/// Σ x² in binary64 (each square is exact there).
pub fn sum_squares_f64(xs: &[f32]) -> f64 {
    let square = |i: usize| f64::from(xs[i]) * f64::from(xs[i]);
    tree(lanes(0.0, xs.len(), |sum: f64, i| sum + square(i)), |a, b| a + b)
}
