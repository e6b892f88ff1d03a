//! Sample problems of convolutions.

use crate::graph::Attrs;
use crate::graph::sample::{Rng, Sample, SampleInput};

/// One problem: `x` is `[n, c, spatial..]`, `k` the kernel; attributes beyond these are given as they are.
struct Case<'a> {
    x: &'a [usize],
    o: usize,
    k: &'a [usize],
    groups: usize,
    strides: &'a [usize],
    dilations: &'a [usize],
    pads: &'a [usize],
    bias: bool,
    constant: bool,
}

impl Case<'_> {
    fn sample(&self) -> Sample {
        let mut attrs = Attrs::new().sizes("kernel_shape", self.k);
        for (name, v) in [("strides", self.strides), ("dilations", self.dilations), ("pads", self.pads)] {
            if !v.is_empty() {
                attrs = attrs.sizes(name, v);
            }
        }
        let groups = i64::try_from(self.groups).expect("small");
        let attrs = if self.groups > 1 { attrs.int("group", groups) } else { attrs };
        let c = self.x[1] / self.groups;
        let weights = [&[self.o, c], self.k].concat();
        let reduction = c * self.k.iter().product::<usize>() + 1;
        let mut inputs = vec![SampleInput::f32(weights)];
        if self.bias {
            inputs.push(SampleInput::f32([self.o]));
        }
        if self.constant {
            inputs = inputs.into_iter().map(SampleInput::constant).collect();
        }
        inputs.insert(0, SampleInput::f32(self.x));
        Sample::new(attrs, inputs).reduction(reduction)
    }
}

pub(super) fn samples(rng: &mut Rng) -> Vec<Sample> {
    let (c, o, h, w) = (rng.int(1, 9), rng.int(1, 35), rng.int(5, 13), rng.int(5, 13));
    let plain = Case {
        x: &[],
        o,
        k: &[3, 3],
        groups: 1,
        strides: &[],
        dilations: &[],
        pads: &[],
        bias: true,
        constant: true,
    };
    let all = [
        Case { x: &[7, c, h, w], pads: &[1, 1, 1, 1], ..plain },
        Case { x: &[1, c, h, w], k: &[1, 1], ..plain },
        Case { x: &[7, c, h, w], k: &[1, 1], bias: false, ..plain },
        Case { x: &[1, c, h, w], k: &[1, 1], strides: &[2, 3], ..plain },
        Case { x: &[1, 3, h, w], k: &[5, 3], strides: &[2, 1], pads: &[0, 2, 3, 1], ..plain },
        Case { x: &[2, c, h, w], dilations: &[2, 1], pads: &[2, 0, 1, 1], constant: false, ..plain },
        Case { x: &[1, 70, 4, 5], o: 16, bias: false, pads: &[1, 1, 1, 1], ..plain },
        // Groups: of whole tiles, of whole quads, of odd sizes, depthwise, depthwise with a multiplier.
        Case { x: &[2, 16, h, w], o: 32, groups: 2, pads: &[1, 1, 0, 0], ..plain },
        Case { x: &[1, 8, h, w], o: 8, groups: 2, bias: false, ..plain },
        Case { x: &[7, 9, h, w], o: 15, groups: 3, strides: &[2, 2], ..plain },
        Case { x: &[7, 6, h, w], o: 6, groups: 6, pads: &[1, 1, 1, 1], ..plain },
        Case { x: &[1, 9, h, w], o: 9, k: &[5, 3], groups: 9, strides: &[2, 2], constant: false, ..plain },
        Case { x: &[1, 5, h, w], o: 15, groups: 5, dilations: &[1, 2], pads: &[4, 4, 4, 4], ..plain },
        // Windows that lie wholly in the padding, and an image smaller than the kernel.
        Case { x: &[1, 2, 1, 2], k: &[2, 3], strides: &[3, 2], pads: &[4, 3, 5, 6], ..plain },
        // One and three spatial axes, no images.
        Case { x: &[7, c, w], k: &[4], pads: &[1, 2], strides: &[2], dilations: &[2], ..plain },
        Case { x: &[1, 3, w], o: 3, k: &[3], groups: 3, ..plain },
        Case { x: &[2, 3, 5, 4, 6], k: &[2, 3, 2], strides: &[1, 2, 1], pads: &[1, 0, 1, 0, 1, 2], ..plain },
        Case { x: &[1, 5, 4, 3, 5], o: 5, k: &[2, 2, 2], groups: 5, dilations: &[2, 1, 3], ..plain },
        Case { x: &[0, c, h, w], ..plain },
    ];
    all.iter().map(Case::sample).collect()
}
