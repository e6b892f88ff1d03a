// Elements are i32; narrower types come widened.
alias T = i32;
alias V = vec4<i32>;
