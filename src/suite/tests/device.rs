//! Where a suite runs.

use super::*;

use crate::suite::settings::Device;

fn on(device: &str) -> crate::error::Result<Suite> {
    parse(&WORLD.replace("seeds = [1, 2]", &format!("seeds = [1, 2]\n{device}")), Path::new("toy.toml"))
}

#[test]
fn a_device_is_the_cpu_or_a_numbered_cuda_device_and_no_part_of_the_digest() {
    let digest = understood(WORLD).digest();
    let devices = [
        ("", Device::Cpu),
        ("device = \"cpu\"", Device::Cpu),
        ("device = \"cuda\"", Device::Cuda(0)),
        ("device = \"cuda:12\"", Device::Cuda(12)),
    ];
    for (written, device) in devices {
        let suite = on(written).unwrap();
        assert_eq!((suite.device, suite.digest()), (device, digest), "{written}");
    }
}

#[test]
fn layers_that_are_computed_again_are_no_part_of_the_digest_and_only_strict() {
    let again = WORLD.replace("optim = \"sgd\"", "optim = \"sgd\"\ngradient_checkpointing = true");
    let suite = understood(&again);
    assert!(trained(&suite, "b").gradient_checkpointing);
    assert_eq!(suite.digest(), understood(WORLD).digest());
    let fast = again.replace("seeds = [1, 2]", "seeds = [1, 2]\nnumerics = \"fast\"");
    let error = parse(&fast, Path::new("toy.toml")).unwrap_err();
    assert!(error.message.contains("with `gradient_checkpointing`"), "{error}");
}

#[test]
fn devices_that_do_not_exist_and_the_fast_arithmetic_on_one_are_refused_at_their_place() {
    for (written, said) in [
        ("device = \"gpu\"", "`device` can't be \"gpu\""),
        ("device = \"cuda:\"", "`device` can't be \"cuda:\""),
        ("device = \"cuda:-1\"", "`device` can't be \"cuda:-1\""),
        ("numerics = \"fast\"\ndevice = \"cuda\"", "numerics = \"fast\" is computed on the CPU alone"),
    ] {
        let error = on(written).unwrap_err();
        assert!(error.message == said && error.help.is_some() && error.place.is_some(), "{error}");
    }
    assert!(on("numerics = \"fast\"\ndevice = \"cpu\"").is_ok());
}
