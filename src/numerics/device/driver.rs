//! The CUDA driver behind a device. Its library is loaded when a device is asked for, so that a program starts without it.
//!
//! Every launch goes into the calling thread's own stream.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use cudarc::driver::sys::{self, CUdevice_attribute, CUresult};

use super::kernels::{Description, NAMES};
use super::memory::{Memory, Purpose};
use super::{Backend, Device, Found, Unavailable};

/// The kernels as nvcc compiled them for all cards from compute capability 8.0 on; empty in a build without nvcc.
static PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// `CU_STREAM_PER_THREAD`
const STREAM: sys::CUstream = ptr::without_provenance_mut(2);

/// An opened device: its primary context with the kernels in it.
pub struct Driver {
    context: sys::CUcontext,
    device: sys::CUdevice,
    functions: BTreeMap<&'static str, sys::CUfunction>,
}

// SAFETY: contexts and functions may be used on any thread that makes the context its current one, as every call here does.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

/// What the driver says of a result; none where it is a success.
fn failure(result: CUresult) -> Option<String> {
    if result == CUresult::CUDA_SUCCESS {
        return None;
    }
    let mut text: *const c_char = ptr::null();
    // SAFETY: the driver's strings are constants; an unknown code leaves null.
    let known = unsafe { sys::cuGetErrorString(result, &raw mut text) } == CUresult::CUDA_SUCCESS && !text.is_null();
    // SAFETY: as above.
    Some(if known { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() } else { format!("error {}", result as u32) })
}

fn check(result: CUresult, what: &str) -> Result<(), Unavailable> {
    match failure(result) {
        None => Ok(()),
        Some(said) => Err(Unavailable {
            message: format!("{what}: {said}"),
            help: "run nvidia-smi: it shows whether driver and GPU work; `device = \"cpu\"` computes the same bits".to_owned(),
        }),
    }
}

fn start() -> Result<(), Unavailable> {
    // SAFETY: the library that is looked for is the driver's.
    if !unsafe { sys::is_culib_present() } {
        return Err(Unavailable {
            message: "NVIDIA's driver is not on this machine (libcuda.so.1 can't be loaded)".to_owned(),
            help: "install the driver (580 or newer), or choose `device = \"cpu\"`, which computes the same bits".to_owned(),
        });
    }
    // SAFETY: the first call into the library; more of them change nothing.
    check(unsafe { sys::cuInit(0) }, "the CUDA driver doesn't start")
}

fn attribute(device: sys::CUdevice, attribute: CUdevice_attribute) -> Result<c_int, Unavailable> {
    let mut value = 0;
    // SAFETY: a device that exists, and room for the answer.
    check(unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) }, "the CUDA driver doesn't know the device")?;
    Ok(value)
}

fn handle(number: usize) -> Result<sys::CUdevice, Unavailable> {
    let (mut count, mut device) = (0, 0);
    // SAFETY: room for the answer.
    check(unsafe { sys::cuDeviceGetCount(&raw mut count) }, "the CUDA driver doesn't count devices")?;
    let of_them = c_int::try_from(number).ok().filter(|number| *number < count).ok_or_else(|| Unavailable {
        message: format!("there is no CUDA device {number}: the driver shows {count}"),
        help: "`dpo-eval doctor` lists them; CUDA_VISIBLE_DEVICES may hide some".to_owned(),
    })?;
    // SAFETY: a number below the count.
    check(unsafe { sys::cuDeviceGet(&raw mut device, of_them) }, "the CUDA driver doesn't give the device")?;
    Ok(device)
}

fn describe(device: sys::CUdevice) -> Result<Found, Unavailable> {
    let (mut name, mut memory) = ([0 as c_char; 256], 0);
    // SAFETY: room for so many characters, the last one zero.
    check(unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), 256, device) }, "the CUDA driver doesn't name the device")?;
    // SAFETY: room for the answer.
    check(unsafe { sys::cuDeviceTotalMem_v2(&raw mut memory, device) }, "the CUDA driver doesn't know the device's memory")?;
    // SAFETY: the driver ends names with zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    Ok(Found { name, memory: memory as u64 })
}

pub fn found() -> Result<Vec<Found>, Unavailable> {
    start()?;
    let mut count = 0;
    // SAFETY: room for the answer.
    check(unsafe { sys::cuDeviceGetCount(&raw mut count) }, "the CUDA driver doesn't count devices")?;
    (0..count as usize).map(|number| describe(handle(number)?)).collect()
}

pub fn open(number: usize) -> Result<Device, Unavailable> {
    if PTX.is_empty() {
        return Err(Unavailable {
            message: "this build has no CUDA kernels: it was made with DPO_EVAL_WITHOUT_NVCC=1".to_owned(),
            help: "build again with nvcc (README, \"On a GPU\")".to_owned(),
        });
    }
    start()?;
    let device = handle(number)?;
    let name = describe(device)?.name;
    let major = attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let shares = attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS)?;
    let processors = attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let unfit = |why: String| Unavailable { message: why, help: "choose another device, or `device = \"cpu\"`".to_owned() };
    if major < 8 {
        return Err(unfit(format!(
            "{name} has compute capability {major}: 8 or newer is needed (Ampere, Ada, Hopper and later)"
        )));
    }
    if shares == 0 {
        return Err(unfit(format!("{name} can't share memory with the CPU on this system (as on Windows and WSL)")));
    }
    let mut context = ptr::null_mut();
    // SAFETY: a device that exists, and room for the answer.
    check(unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, device) }, "the CUDA device can't be opened")?;
    // SAFETY: the context was just made.
    check(unsafe { sys::cuCtxSetCurrent(context) }, "the CUDA device can't be opened")?;
    let functions = functions()?;
    let driver = Driver { context, device, functions };
    Ok(Device { name, processors: processors as usize, memory: Memory::default(), backend: Box::new(driver) })
}

/// The kernels, in the current context.
fn functions() -> Result<BTreeMap<&'static str, sys::CUfunction>, Unavailable> {
    let (ptx, mut module) = (CString::new(PTX).expect("PTX is text"), ptr::null_mut());
    // SAFETY: PTX ends with zero, and there is room for the answer.
    let loaded = unsafe { sys::cuModuleLoadData(&raw mut module, ptx.as_ptr().cast()) };
    check(loaded, "the driver doesn't take the kernels (it must not be older than the nvcc that compiled them)")?;
    let function = |name: &&'static str| {
        let (c_name, mut function) = (CString::new(*name).expect("a name is text"), ptr::null_mut());
        // SAFETY: the module was just loaded and stays.
        check(unsafe { sys::cuModuleGetFunction(&raw mut function, module, c_name.as_ptr()) }, name)?;
        Ok((*name, function))
    };
    NAMES.iter().map(function).collect()
}

impl Driver {
    /// On this thread. What fails from here on is a failure of the machine in the middle of a computation.
    fn expect(&self, result: CUresult, what: &str) {
        if let Some(said) = failure(result) {
            panic!("{what}: {said}; nvidia-smi and the system's log may say more");
        }
    }

    fn enter(&self) {
        // SAFETY: the context is kept for good.
        self.expect(unsafe { sys::cuCtxSetCurrent(self.context) }, "the CUDA device is gone");
    }
}

impl Backend for Driver {
    fn allocate(&self, bytes: usize, purpose: Purpose) -> *mut u8 {
        self.enter();
        if purpose == Purpose::Exchange {
            let mut start = ptr::null_mut();
            // SAFETY: room for the answer. Under unified addressing, which all such devices have, the device knows it by the same address.
            let result = unsafe {
                sys::cuMemHostAlloc(&raw mut start, bytes, sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP)
            };
            self.expect(result, &format!("there is no memory for {bytes} bytes that the CUDA device can read"));
            return start.cast();
        }
        let (mut address, everybody) = (0, sys::CUmemAttach_flags::CU_MEM_ATTACH_GLOBAL as u32);
        // SAFETY: room for the answer.
        let result = unsafe { sys::cuMemAllocManaged(&raw mut address, bytes, everybody) };
        self.expect(result, &format!("the CUDA device has no memory for {bytes} bytes"));
        // SAFETY: memory that was just allocated. It is advice: where it isn't taken nothing is lost but time.
        unsafe { sys::cuMemAdvise(address, bytes, sys::CUmem_advise::CU_MEM_ADVISE_SET_PREFERRED_LOCATION, self.device) };
        ptr::with_exposed_provenance_mut(address as usize)
    }

    unsafe fn start(&self, kernel: &Description, parameters: *const c_void, blocks: u32) {
        self.enter();
        let (function, mut arguments) = (self.functions[kernel.name], [parameters.cast_mut()]);
        // SAFETY: handed on; the driver copies the parameters before it returns.
        let result = unsafe {
            sys::cuLaunchKernel(function, blocks, 1, 1, kernel.threads, 1, 1, 0, STREAM, arguments.as_mut_ptr(), ptr::null_mut())
        };
        self.expect(result, kernel.name);
    }

    fn wait(&self) {
        self.enter();
        // SAFETY: the stream is always there.
        self.expect(unsafe { sys::cuStreamSynchronize(STREAM) }, "a kernel failed");
    }

    fn memory(&self) -> (u64, u64) {
        self.enter();
        let (mut free, mut total) = (0, 0);
        // SAFETY: room for the answer.
        self.expect(unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) }, "the CUDA device doesn't know its memory");
        (free as u64, total as u64)
    }
}
