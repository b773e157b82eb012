//! Whole commands, as a user types them. One binary: it links once.

mod data;
mod decoding;
mod errors;
mod evaluated;
mod families;
mod frontier;
mod fuzz;
mod gate;
mod hub;
mod interruption;
mod judges;
mod known_truth;
mod lora;
mod online;
mod onnx_judge;
mod quickstart;
mod readme;
mod real_input;
mod repro;
mod rounds;
mod sequential;
mod smoke;
mod support;
mod training;
mod winrate;
