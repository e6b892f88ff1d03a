// A window over the spatial axes [d, h, w] of a channels-last image; lower ranks have leading axes of length 1.
struct Window {
    input: vec4<u32>,
    output: vec4<u32>,
    kernel: vec4<u32>,
    stride: vec4<u32>,
    dilation: vec4<u32>,
    // Padding in front, and the end of the padded input counted from where that begins.
    begin: vec4<u32>,
    limit: vec4<u32>,
}

struct OutputAt {
    group: u32,
    at: vec3<u32>,
    n: u32,
}

// Channel group, position and image of vec4 number i of the output.
fn output_at(i: u32, groups: u32) -> OutputAt {
    let o = params.window.output;
    var rest = i / groups;
    let w = rest % o.z;
    rest /= o.z;
    let h = rest % o.y;
    rest /= o.y;
    return OutputAt(i % groups, vec3<u32>(rest % o.x, h, w), rest / o.x);
}

// Position of tap t for an output position; beyond the input (and huge before it) where it lies in padding.
fn tap_at(at: vec3<u32>, t: vec3<u32>) -> vec3<u32> {
    return at * params.window.stride.xyz + t * params.window.dilation.xyz - params.window.begin.xyz;
}
