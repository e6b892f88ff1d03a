// Element types of a binary kernel: f32 and i32 to f32.
alias A = vec4<f32>;
alias B = vec4<i32>;
alias Y = vec4<f32>;
