/// Not a test: this binary as the keeper of a server.
#[test]
#[ignore = "the test bed starts it"]
fn keep() {
    bed::keep();
}
