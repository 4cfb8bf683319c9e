# AttributeError: 'int' object has no attribute 'value'
@graph(params={'onnx_Transpose_0': 'onnx::Transpose_0'}, results=('3',))
def main(onnx_Transpose_0: f32[3, 1000]) -> f32[1000, 3]:
    Transpose_output_0: f32[1000, 3] = transpose(onnx_Transpose_0, perm=(1, 0))  # perm_3x1000_10.onnx node "/Transpose" (Transpose)
    Constant_output_0: f32[()] = f32(0.5)
    v_3: f32[1000, 3] = add(Transpose_output_0, Constant_output_0)  # perm_3x1000_10.onnx node "/Add" (Add)
    return v_3
