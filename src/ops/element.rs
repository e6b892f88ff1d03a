//! Data movement on the CPU, written once for every element type.

use crate::graph::{OpError, Scratch};
use crate::tensor::{DType, Tensor};

/// What a movement may know of an element.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// The constant that is `float` for f32 and `int` for every other type.
    fn constant(float: f32, int: i32) -> Self;
}

impl Element for f32 {
    fn constant(float: f32, _int: i32) -> f32 {
        float
    }
}

impl Element for i32 {
    fn constant(_float: f32, int: i32) -> i32 {
        int
    }
}

impl Element for u16 {
    fn constant(_float: f32, int: i32) -> u16 {
        let [low, high, ..] = int.to_le_bytes();
        u16::from_le_bytes([low, high])
    }
}

impl Element for u8 {
    fn constant(_float: f32, int: i32) -> u8 {
        int.to_le_bytes()[0]
    }
}

/// A function that moves elements without computing with them.
pub(crate) trait Movement {
    /// Writes all of `y`, whose values are unspecified before.
    fn run<T: Element>(&self, inputs: &[&[T]], y: &mut [T]) -> Result<(), OpError>;
}

/// The tensor of this shape that `movement` makes of `inputs`, which have one type (i8 moves as u8).
pub(crate) fn moved(
    cx: &Scratch,
    shape: &[usize],
    inputs: &[&Tensor],
    movement: &impl Movement,
) -> Result<Tensor, OpError> {
    let n = shape.iter().product();
    let bytes = |inputs: &[&Tensor]| {
        let inputs: Vec<&[u8]> = inputs.iter().map(|t| t.bytes()).collect();
        let mut y = cx.take_bytes(n);
        movement.run(&inputs, &mut y).map(|()| y)
    };
    Ok(match inputs[0].dtype() {
        DType::F32 => {
            let inputs: Vec<&[f32]> = inputs.iter().map(|t| t.f32s()).collect();
            let mut y = cx.take(n);
            movement.run(&inputs, &mut y)?;
            Tensor::from_f32(shape, y)
        }
        DType::I32 => {
            let inputs: Vec<&[i32]> = inputs.iter().map(|t| t.i32s()).collect();
            let mut y = vec![0; n];
            movement.run(&inputs, &mut y)?;
            Tensor::from_i32(shape, y)
        }
        dtype @ (DType::I16 | DType::U16) => {
            let inputs: Vec<&[u16]> = inputs.iter().map(|t| bytemuck::cast_slice(t.bytes())).collect();
            let mut y = vec![0u16; n];
            movement.run(&inputs, &mut y)?;
            Tensor::from_bytes(dtype, shape, bytemuck::cast_slice(&y))
                .expect("elements are moved as they are")
        }
        DType::I8 => Tensor::from_i8(shape, bytemuck::cast_vec(bytes(inputs)?)),
        DType::U8 => Tensor::from_u8(shape, bytes(inputs)?),
        dtype => Tensor::from_bytes(dtype, shape, &bytes(inputs)?).expect("elements are moved as they are"),
    })
}
