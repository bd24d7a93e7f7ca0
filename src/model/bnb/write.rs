//! NF4 weights in the layout of [`super::read`], as transformers saves them.

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::ops::nf4::{Absmax, CODE, NESTED_BLOCK, Nf4, dynamic_map};

/// A tensor that stands for a quantised weight in a file.
pub(in crate::model) struct Stored {
    /// After the weight's name, with the dot; empty for the packed levels.
    pub suffix: &'static str,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The shape is an upper bound: the state's length depends on its numbers.
    pub bound: bool,
}

/// The tensors that [`stored_bytes`] gives for a weight, known from its shape.
pub(in crate::model) fn stored(
    shape: [usize; 2],
    dtype: Dtype,
    block_size: usize,
    double: bool,
) -> Vec<Stored> {
    let numel = shape[0] * shape[1];
    let blocks = numel.div_ceil(block_size);
    let part = |suffix, dtype, shape: &[usize]| Stored {
        suffix,
        dtype,
        shape: shape.to_vec(),
        bound: false,
    };
    let mut all = vec![
        part("", Dtype::U8, &[numel.div_ceil(2), 1]),
        part(
            ".absmax",
            if double { Dtype::U8 } else { Dtype::F32 },
            &[blocks],
        ),
        part(".quant_map", Dtype::F32, &[16]),
    ];
    if double {
        all.push(part(
            ".nested_absmax",
            Dtype::F32,
            &[blocks.div_ceil(NESTED_BLOCK)],
        ));
        all.push(part(".nested_quant_map", Dtype::F32, &[256]));
    }
    // The longest float is one of 17 digits with sign, point and exponent.
    let longest = state_json(
        shape,
        dtype,
        block_size,
        double.then_some(f32::MIN_POSITIVE),
    )
    .len()
        + 24;
    all.push(Stored {
        suffix: ".quant_state.bitsandbytes__nf4",
        dtype: Dtype::U8,
        shape: vec![longest],
        bound: true,
    });
    all
}

/// The bytes of each tensor of [`stored`], in the same order.
pub(in crate::model) fn stored_bytes(
    weight: &Nf4,
    dtype: Dtype,
) -> Vec<std::borrow::Cow<'_, [u8]>> {
    let floats =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let mut all = vec![weight.packed.as_slice().into()];
    let offset = match &weight.absmax {
        Absmax::Plain(maxima) => {
            all.push(floats(maxima).into());
            all.push(floats(&CODE).into());
            None
        }
        Absmax::Double {
            codes,
            nested_absmax,
            offset,
        } => {
            all.push(codes.as_slice().into());
            all.push(floats(&CODE).into());
            all.push(floats(nested_absmax).into());
            all.push(floats(dynamic_map()).into());
            Some(*offset)
        }
    };
    let state = state_json(weight.shape, dtype, weight.block_size, offset);
    all.push(state.into_bytes().into());
    all
}

/// The state as Python's `json.dumps` writes it.
fn state_json(shape: [usize; 2], dtype: Dtype, block_size: usize, offset: Option<f32>) -> String {
    let [rows, columns] = shape;
    let dtype = torch_name(dtype);
    let mut text = format!(
        "{{\"quant_type\": \"nf4\", \"blocksize\": {block_size}, \"dtype\": \"{dtype}\", \
         \"shape\": [{rows}, {columns}]"
    );
    if let Some(offset) = offset {
        text += &format!(
            ", \"nested_blocksize\": {NESTED_BLOCK}, \"nested_dtype\": \"float32\", \
             \"nested_offset\": {}",
            python_float(f64::from(offset))
        );
    }
    text + "}"
}

/// torch's name of a floating-point type.
pub(in crate::model) fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        _ => "float32",
    }
}

/// A number as Python's `repr` writes it: the shortest digits, an exponent below
/// 1e-4 and from 1e16.
pub(super) fn python_float(x: f64) -> String {
    let text = format!("{x:e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        // Rust's `{:?}` goes on without an exponent in this range.
        _ => format!("{x:?}"),
    }
}

/// `quantization_config` as transformers writes it for these settings.
pub(in crate::model) fn config_json(double: bool, compute_dtype: &str) -> Value {
    json!({
        "_load_in_4bit": true,
        "_load_in_8bit": false,
        "bnb_4bit_compute_dtype": compute_dtype,
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": double,
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": null,
        "llm_int8_threshold": 6.0,
        "load_in_4bit": true,
        "load_in_8bit": false,
        "quant_method": "bitsandbytes",
    })
}
