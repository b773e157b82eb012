//! The kernels of `cuda/` and their parameters, structure for structure and in the same order of fields.

use std::marker::PhantomData;

#[cfg(emulated)]
use super::emulator::Compiled;

/// A kernel that takes `P` by value.
pub struct Kernel<P> {
    pub description: Description,
    takes: PhantomData<fn(P)>,
}

/// How a kernel is found and launched.
#[allow(dead_code, reason = "each backend has its own way to find a kernel")]
pub struct Description {
    pub name: &'static str,
    /// Of a block.
    pub threads: u32,
    #[cfg(emulated)]
    pub compiled: *const Compiled,
}

// SAFETY: the pointer is that of a constant.
unsafe impl Sync for Description {}

macro_rules! kernels {
    ($($constant:ident = $name:ident($parameters:ty) by $threads:literal;)+) => {
        #[cfg(emulated)]
        #[allow(dead_code, non_upper_case_globals, reason = "as the kernels are called, of which tests alone launch one")]
        mod compiled {
            unsafe extern "C" {
                $(pub static $name: super::Compiled;)+
            }
        }
        $(#[allow(dead_code, reason = "tests alone launch one")]
        pub static $constant: Kernel<$parameters> = Kernel {
            description: Description {
                name: stringify!($name),
                threads: $threads,
                #[cfg(emulated)]
                compiled: &raw const compiled::$name,
            },
            takes: PhantomData,
        };)+

        /// Name, threads of a block and size of the parameters, as this side and as the compiled one has them.
        #[cfg(all(test, emulated))]
        pub fn layouts() -> Vec<(&'static str, [(u32, usize); 2])> {
            // SAFETY: constants that the C compiler made.
            vec![$({
                let (kernel, compiled) = (&$constant.description, unsafe { &*$constant.description.compiled });
                (kernel.name, [(kernel.threads, size_of::<$parameters>()), (compiled.threads, compiled.parameters)])
            }),+]
        }

        #[cfg(feature = "cuda")]
        pub const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

kernels! {
    GEMM_LARGE = dpo_gemm_large(Product) by 256;
    GEMM_MEDIUM = dpo_gemm_medium(Product) by 256;
    GEMM_FEW = dpo_gemm_few(Product) by 128;
    RMS_INVERSE = dpo_rms_inverse(Norm) by 256;
    RMS_SCALE = dpo_rms_scale(Norm) by 256;
    RMS_BACKWARD = dpo_rms_backward(Norm) by 256;
    RMS_WEIGHT = dpo_rms_weight(Norm) by 64;
    LAYER_MOMENTS = dpo_layer_moments(Norm) by 256;
    LAYER_SCALE = dpo_layer_scale(Norm) by 256;
    LAYER_BACKWARD = dpo_layer_backward(Norm) by 256;
    LAYER_PARAMETERS = dpo_layer_parameters(Norm) by 64;
    ADD_COLUMNS = dpo_add_columns(Matrix) by 64;
    FILL_ROWS = dpo_fill_rows(Matrix) by 256;
    ADD_TO_ROWS = dpo_add_to_rows(Matrix) by 256;
    GATHER_ROWS = dpo_gather_rows(Matrix) by 256;
    SPREAD_ROWS = dpo_spread_rows(Matrix) by 256;
    ADD_GATHERED_ROWS = dpo_add_gathered_rows(Matrix) by 256;
    SCATTER_ADD = dpo_scatter_add(Scatter) by 256;
    GATED_FORWARD = dpo_gated_forward(Activation) by 256;
    GATED_BACKWARD = dpo_gated_backward(Activation) by 256;
    GELU_FORWARD = dpo_gelu_forward(Activation) by 256;
    GELU_BACKWARD = dpo_gelu_backward(Activation) by 256;
    ELEMENTARY = dpo_elementary(Activation) by 256;
    SOFTCAP_FORWARD = dpo_softcap_forward(Scalar) by 256;
    SOFTCAP_BACKWARD = dpo_softcap_backward(Scalar) by 256;
    SCALE = dpo_scale(Scalar) by 256;
    ADD = dpo_add(Scalar) by 256;
    ADD_VALUE = dpo_add_value(Scalar) by 256;
    COPY = dpo_copy(Scalar) by 256;
    FILL = dpo_fill(Scalar) by 256;
    TURN = dpo_turn(Turn) by 256;
    DROPOUT = dpo_dropout(Dropout) by 256;
    ADAMW = dpo_adamw(Update) by 256;
    RMSPROP = dpo_rmsprop(Update) by 256;
    SGD = dpo_sgd(Update) by 256;
    TOKEN_SCORES = dpo_token_scores(Logits) by 256;
    TOKEN_BACKWARD = dpo_token_backward(Logits) by 256;
    ROW_KL = dpo_row_kl(Logits) by 256;
    SUM_SQUARES = dpo_sum_squares(Squares) by 256;
    ATTEND_64 = dpo_attend_64(Attention) by 256;
    ATTEND_128 = dpo_attend_128(Attention) by 256;
    ATTEND_256 = dpo_attend_256(Attention) by 256;
    ATTEND_BACKWARD_QUERIES_64 = dpo_attend_backward_queries_64(Attention) by 256;
    ATTEND_BACKWARD_QUERIES_128 = dpo_attend_backward_queries_128(Attention) by 256;
    ATTEND_BACKWARD_QUERIES_256 = dpo_attend_backward_queries_256(Attention) by 256;
    ATTEND_BACKWARD_KEYS_64 = dpo_attend_backward_keys_64(Attention) by 256;
    ATTEND_BACKWARD_KEYS_128 = dpo_attend_backward_keys_128(Attention) by 256;
    ATTEND_BACKWARD_KEYS_256 = dpo_attend_backward_keys_256(Attention) by 256;
    STORE_CACHED = dpo_store_cached(Cached) by 256;
    ATTEND_CACHED = dpo_attend_cached(Cached) by 256;
    MULTIPLY_ADDS = dpo_multiply_adds(Chains) by 256;
}

/// Kernels for heads of at most so many elements, ascending.
pub type ByDim = [(usize, &'static Kernel<Attention>); 3];
pub static ATTEND: ByDim = [(64, &ATTEND_64), (128, &ATTEND_128), (256, &ATTEND_256)];
pub static ATTEND_BACKWARD_QUERIES: ByDim =
    [(64, &ATTEND_BACKWARD_QUERIES_64), (128, &ATTEND_BACKWARD_QUERIES_128), (256, &ATTEND_BACKWARD_QUERIES_256)];
pub static ATTEND_BACKWARD_KEYS: ByDim =
    [(64, &ATTEND_BACKWARD_KEYS_64), (128, &ATTEND_BACKWARD_KEYS_128), (256, &ATTEND_BACKWARD_KEYS_256)];

#[repr(C)]
pub struct Product {
    pub a: *const f32,
    pub b: *const f32,
    pub c: *mut f32,
    pub a_strides: [i64; 2],
    pub b_strides: [i64; 2],
    pub c_strides: [i64; 2],
    pub m: i32,
    pub n: i32,
    pub k: i32,
    pub accumulate: i32,
}

#[repr(C)]
pub struct Norm {
    pub x: *const f32,
    pub weight: *const f32,
    pub bias: *const f32,
    pub dy: *const f32,
    pub spread: *mut f32,
    pub out: *mut f32,
    pub dweight: *mut f32,
    pub dbias: *mut f32,
    pub rows: i32,
    pub hidden: i32,
    pub eps: f32,
}

#[repr(C)]
pub struct Matrix {
    pub from: *const f32,
    pub to: *mut f32,
    pub places: *const u32,
    pub rows: i32,
    pub width: i32,
}

#[repr(C)]
pub struct Scatter {
    pub from: *const f32,
    pub to: *mut f32,
    pub targets: *const u32,
    pub starts: *const u32,
    pub sources: *const u32,
    pub count: i32,
    pub width: i32,
}

#[repr(C)]
pub struct Activation {
    pub gate: *mut f32,
    pub up: *mut f32,
    pub out: *mut f32,
    pub n: u64,
    pub form: i32,
    pub again: i32,
}

#[repr(C)]
pub struct Scalar {
    pub from: *const f32,
    pub to: *mut f32,
    pub n: u64,
    pub value: f32,
}

#[repr(C)]
pub struct Turn {
    pub x: *mut f32,
    pub positions: *const u32,
    pub cosines: *const f32,
    pub sines: *const f32,
    pub rows: i32,
    pub width: i32,
    pub head_dim: i32,
    pub half: i32,
    pub direction: f32,
}

#[repr(C)]
pub struct Dropout {
    pub from: *const f32,
    pub to: *mut f32,
    pub states: *const u64,
    pub n: u64,
    pub threshold: u64,
    pub width: i32,
    pub keep: f32,
}

#[repr(C)]
pub struct Update {
    pub parameter: *mut f32,
    pub gradient: *const f32,
    pub first: *mut f32,
    pub second: *mut f32,
    pub n: u64,
    pub c: [f32; 8],
}

#[repr(C)]
pub struct Logits {
    pub x: *mut f32,
    pub other: *const f32,
    pub tokens: *const u32,
    pub dlogp: *const f32,
    pub out: *mut f32,
    pub rows: i32,
    pub width: i32,
}

#[repr(C)]
pub struct Squares {
    pub tensors: *const *const f32,
    pub lengths: *const u64,
    pub sums: *mut f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct QueryTile {
    pub keys: i32,
    pub place: i32,
    pub count: i32,
    pub first: i32,
    pub step: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct KeyTile {
    pub row: i32,
    pub index: i32,
    pub count: i32,
    pub viewers: i32,
    pub viewers_end: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Viewer {
    pub place: i32,
    pub count: i32,
    pub first: i32,
    pub step: i32,
}

#[repr(C)]
pub struct Attention {
    pub q: *const f32,
    pub k: *const f32,
    pub v: *const f32,
    pub dout: *const f32,
    pub out: *mut f32,
    pub dq: *mut f32,
    pub dk: *mut f32,
    pub dv: *mut f32,
    pub kept: *mut f32,
    pub keys: *const u32,
    pub query_tiles: *const QueryTile,
    pub key_tiles: *const KeyTile,
    pub viewers: *const Viewer,
    pub heads: i32,
    pub group: i32,
    pub dim: i32,
    pub query_width: i32,
    pub key_width: i32,
    pub window: i32,
    pub scale: f32,
    pub cap: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Cache {
    pub keys: *mut f32,
    pub values: *mut f32,
    pub length: i32,
    pub capacity: i32,
}

#[repr(C)]
pub struct Cached {
    pub caches: *const Cache,
    pub q: *const f32,
    pub k: *const f32,
    pub v: *const f32,
    pub out: *mut f32,
    pub of: *const u32,
    pub positions: *const u32,
    pub rows: i32,
    pub layer: i32,
    pub heads: i32,
    pub group: i32,
    pub dim: i32,
    pub width: i32,
    pub window: i32,
    pub scale: f32,
    pub cap: f32,
}

#[repr(C)]
pub struct Chains {
    pub out: *mut f32,
    pub rounds: i32,
}

/// What the kernels count with.
pub fn int(n: usize) -> i32 {
    i32::try_from(n).expect("a dimension below 2³¹")
}
