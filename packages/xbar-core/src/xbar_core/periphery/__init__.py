"""The periphery of an array: DAC, ADC, their ranges and their non-linearity."""
