"""scikit-learn's interface: `NMF`, its inputs, its attributes, and what `partial_fit` keeps."""
