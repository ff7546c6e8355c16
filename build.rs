fn main() {
    // Sets the linker flags of an addon. One is `-z nodelete`: without it, the end of the only worker that loaded the
    // addon would unmap the code that the sweeper runs.
    napi_build::setup();
}
