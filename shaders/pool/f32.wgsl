// Elements are f32.
alias T = f32;
alias V = vec4<f32>;
