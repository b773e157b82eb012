//! Rotary position embedding (Su et al. 2021) in Hugging Face's layout: element i pairs with element i + head_dim / 2. Where only the
//! first elements of a head are turned (GPT-NeoX), they pair among themselves as a head of their own.

/// (cos, sin) of position · θ^(−2i / head_dim) for the pair `i`, in binary64 by a portable libm, rounded once.
pub fn rotary(position: u32, i: usize, head_dim: usize, theta: f64) -> (f32, f32) {
    let angle = f64::from(position) * libm::pow(theta, -((2 * i) as f64) / head_dim as f64);
    (libm::cos(angle) as f32, libm::sin(angle) as f32)
}

/// Turns each pair of one head by its angle: (a, b) ← (a cos − b sin, b cos + a sin).
pub fn turn(head: &mut [f32], position: u32, theta: f64) {
    turn_by(head, |i, n| rotary(position, i, n, theta));
}

/// The gradient of [`turn`] in place: the same turn backwards.
pub fn turn_backward(dhead: &mut [f32], position: u32, theta: f64) {
    turn_by(dhead, |i, n| {
        let (cos, sin) = rotary(position, i, n, theta);
        (cos, -sin)
    });
}

fn turn_by(head: &mut [f32], angle: impl Fn(usize, usize) -> (f32, f32)) {
    let half = head.len() / 2;
    for i in 0..half {
        let (cos, sin) = angle(i, head.len());
        let (a, b) = (head[i], head[i + half]);
        head[i] = a.mul_add(cos, -(b * sin));
        head[i + half] = b.mul_add(cos, a * sin);
    }
}
