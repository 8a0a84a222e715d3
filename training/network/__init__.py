"""The networks: LSTM-FCN and its family."""
