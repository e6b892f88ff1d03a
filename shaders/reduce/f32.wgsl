// Elements are f32.
alias T = f32;
