// Elements are i32; narrower types come widened.
alias T = i32;
