// No registry has it.
declare module "@fluidauth/express";
